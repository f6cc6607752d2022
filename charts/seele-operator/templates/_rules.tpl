{{/* The operator's rights on runs and their objects, as in manifests/rbac.yaml; a test compares the two. */}}
{{- define "seele-operator.rules" -}}
# Runs belong to users: the operator reads them, and deletes them only after runPolicy.ttlSecondsAfterFinished.
- apiGroups: [seele.dev]
  resources: [seeleruns]
  verbs: [get, list, watch, delete]
- apiGroups: [seele.dev]
  resources: [seeleruns/status]
  verbs: [patch]
# Patched only to adopt orphans.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The logs of rollout servers that failed, for the reason.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create, patch]
# Created but never changed, since a claim may outlive its run.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
# For gang schedulers, if installed. Deleted together with the pods, because a group holds quota.
- apiGroups: [scheduling.volcano.sh, scheduling.x-k8s.io]
  resources: [podgroups]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}
