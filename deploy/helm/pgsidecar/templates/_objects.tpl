{{/*
The objects beside the pod: the configuration, and what is asked for of a PodMonitor and a NetworkPolicy. It takes a dict of
the application's context and of the labels that select its pods: (dict "context" . "selector" $labels).
*/}}
{{- define "pgsidecar.objects" -}}
{{- $v := .context.Values.pgsidecar -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "pgsidecar.name" .context }}
data:
  pgsidecar.yaml: |
    {{- include "pgsidecar.config" .context | nindent 4 }}
{{- if $v.podMonitor }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "pgsidecar.name" .context }}
spec:
  selector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
  podMetricsEndpoints:
    - { portNumber: 6433, path: /metrics, interval: 15s }
{{- end }}
{{- if $v.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "pgsidecar.name" .context }}
spec:
  podSelector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - namespaceSelector:
            matchLabels: { kubernetes.io/metadata.name: {{ $v.networkPolicy.prometheusNamespace }} }
      ports: [{ protocol: TCP, port: 6433 }]
  egress:
    - ports: [{ protocol: UDP, port: 53 }, { protocol: TCP, port: 53 }]
    - ports: [{ protocol: TCP, port: 5432 }]
{{- end }}
{{- end }}
