{{/* What the operator may do with runs and their objects: the rules of manifests/rbac.yaml, which a test compares. */}}
{{- define "seele-operator.rules" -}}
# Runs are the user's: the operator reads them, and deletes them only after runPolicy.ttlSecondsAfterFinished.
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
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create, patch]
# Made and never changed: a claim may outlive its run.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
# Of gang schedulers, where they are installed. Deleted whenever the pods are: a group holds quota.
- apiGroups: [scheduling.volcano.sh, scheduling.x-k8s.io]
  resources: [podgroups]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}
