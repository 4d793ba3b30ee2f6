{{/* The parts of a pod's spec. All take the application's own context (.). */}}

{{/* terminationGracePeriodSeconds of the pod. */}}
{{- define "pgsidecar.terminationGracePeriodSeconds" -}}
{{ .Values.pgsidecar.terminationGracePeriodSeconds }}
{{- end }}

{{/* The name of the objects that belong to the sidecar. */}}
{{- define "pgsidecar.name" -}}
{{ printf "%s-pgsidecar" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The configuration file. What the chart sets comes before what config says. */}}
{{- define "pgsidecar.config" -}}
{{- $v := .Values.pgsidecar -}}
{{- $own := dict
    "http" (dict "listen" "0.0.0.0:6433" "pod_terminating" $v.notice)
    "lifecycle" $v.lifecycle
    "drain" (dict "pod_grace" (printf "%ds" (int $v.terminationGracePeriodSeconds))) -}}
{{ toYaml (mergeOverwrite (deepCopy $v.config) $own) }}
{{- end }}

{{/* An annotation that restarts the pods when the configuration changes. */}}
{{- define "pgsidecar.annotations" -}}
pgsidecar/config: {{ include "pgsidecar.config" . | sha256sum | trunc 16 }}
{{- end }}

{{/* Items for initContainers (lifecycle native) and containers (classic); each is empty in the other case. */}}
{{- define "pgsidecar.initContainers" -}}
{{- if eq .Values.pgsidecar.lifecycle "native" }}{{ include "pgsidecar.container" . }}{{ end }}
{{- end }}
{{- define "pgsidecar.containers" -}}
{{- if eq .Values.pgsidecar.lifecycle "classic" }}{{ include "pgsidecar.container" . }}{{ end }}
{{- end }}

{{- define "pgsidecar.container" -}}
{{- $v := .Values.pgsidecar -}}
- name: pgsidecar
  image: {{ if $v.image.digest }}{{ printf "%s@%s" $v.image.repository $v.image.digest }}{{ else }}{{ printf "%s:%s" $v.image.repository $v.image.tag }}{{ end }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  args: [run, --config, /etc/pgsidecar/pgsidecar.yaml]
  {{- if eq $v.lifecycle "native" }}
  restartPolicy: Always
  {{- end }}
  env:
    - name: DATABASE_URL
      valueFrom: { secretKeyRef: { name: {{ $v.database.secretName }}, key: {{ $v.database.secretKey }} } }
    - { name: GOMAXPROCS, value: "2" }
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - { name: pgsidecar-http, containerPort: 6433 }
  {{- if eq $v.lifecycle "native" }}
  startupProbe:
    httpGet: { path: /readyz, port: 6433 }
    periodSeconds: 1
    failureThreshold: 30
  {{- end }}
  readinessProbe:
    httpGet: { path: /readyz, port: 6433 }
    periodSeconds: 5
  livenessProbe:
    httpGet: { path: /livez, port: 6433 }
    periodSeconds: 10
  {{- if $v.notice }}
  lifecycle:
    preStop: { httpGet: { path: /pod-terminating, port: 6433 } }
  {{- end }}
  resources:
    {{- toYaml $v.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities: { drop: [ALL] }
    seccompProfile: { type: RuntimeDefault }
  volumeMounts:
    - { name: pgsidecar, mountPath: /etc/pgsidecar, readOnly: true }
{{- end }}

{{/* An item for volumes. */}}
{{- define "pgsidecar.volumes" -}}
- { name: pgsidecar, configMap: { name: {{ include "pgsidecar.name" . }} } }
{{- end }}
