{{/* Name of all objects; leaves room for suffixes within 63 characters. */}}
{{- define "seele-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "seele-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "seele-operator.chartLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Metadata of an object: (dict "root" $ "name" … "namespace" … "labels" … "annotations" …); only root is required.
Names are quoted, since a name such as 2024 would be read as a number. User labels cannot override those used in selectors.
*/}}
{{- define "seele-operator.metadata" -}}
{{- $selector := include "seele-operator.selectorLabels" .root | fromYaml -}}
{{- $chart := include "seele-operator.chartLabels" .root | fromYaml -}}
name: {{ .name | default (include "seele-operator.fullname" .root) | quote }}
{{- if not .clusterScoped }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
{{- end }}
labels:
  {{- toYaml (merge $selector (.labels | default dict) (.root.Values.commonLabels | default dict) $chart) | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "seele-operator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "seele-operator.fullname" .) }}
{{- end }}

{{- define "seele-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}
