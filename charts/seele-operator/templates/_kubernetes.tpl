{{/*
The server's version as one number: 120 for 1.20. It is 0 where the server does not tell one that makes sense, as builds
without their repository's tags do, and counts as old then.
*/}}
{{- define "seele-operator.kubernetes" -}}
{{- $version := .Capabilities.KubeVersion.Version }}
{{- if regexMatch "^v?[1-9][0-9]*\\.[0-9]+" $version }}
{{- $parts := splitList "." (regexFind "[0-9]+\\.[0-9]+" $version) }}
{{- add (mul 100 (index $parts 0)) (index $parts 1) }}
{{- else }}
{{- 0 }}
{{- end }}
{{- end }}

{{/* API group of PodDisruptionBudgets. */}}
{{- define "seele-operator.policyVersion" -}}
{{- $kubernetes := int (include "seele-operator.kubernetes" .) }}
{{- if or (ge $kubernetes 121) (and (eq $kubernetes 0) (.Capabilities.APIVersions.Has "policy/v1/PodDisruptionBudget")) }}
{{- "policy/v1" }}
{{- else }}
{{- "policy/v1beta1" }}
{{- end }}
{{- end }}
