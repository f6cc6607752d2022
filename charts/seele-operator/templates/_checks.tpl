{{/* Checks that the schema cannot express; each fails with one line that names the value. */}}
{{- define "seele-operator.checks" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) }}
{{- fail "replicas: several operators need leader election: set leaderElection.enabled to true, or replicas to 1" }}
{{- end }}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) }}
{{- fail "serviceAccount.name: name the operator's account, or set serviceAccount.create to true" }}
{{- end }}
{{- end }}
