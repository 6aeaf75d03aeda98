"""Templates of `deploy`: files of Docker Compose and Kubernetes for TF Serving, with @NAME@ where a value goes."""

COMPOSE = """\
# TF Serving on this machine: docker compose up -d, then curl http://localhost:8501@PROBE@
# The GPU image needs an NVIDIA driver for CUDA 12.5 (555 or newer) and the NVIDIA Container Toolkit.
# TF Serving asks for no token, speaks no TLS over REST and limits no body: the ports are open to this machine alone.
# Other machines come in through a proxy that does these three.
services:
  serving:
    image: @IMAGE@
    command:
@FLAGS@
    ports:
      - "127.0.0.1:8500:8500"
      - "127.0.0.1:8501:8501"
    volumes:
      - type: bind
        source: @MODELS@
        target: /models
        read_only: true
        bind:
          create_host_path: false
      - type: bind
        source: .
        target: /config
        read_only: true
    healthcheck:
      test: @HEALTH@
      interval: 5s
      timeout: 5s
      retries: 6
      start_period: 5m
    restart: unless-stopped
    # It ends at once when it is told to, with requests in flight: stop the callers first.
@GPU@"""

COMPOSE_GPU = """\
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
"""

KUBERNETES = """\
# TF Serving in a cluster: kubectl apply -f kubernetes.yaml, with the models on the volume below.
# A new version is copied to the volume under a name that is no number and then renamed (mv), never written in place: a
# version that is seen half-written fails to load.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: dmkeras-models
spec:
  accessModes: [ReadWriteMany]  # read by every replica, on every node
  resources:
    requests:
      storage: 20Gi
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: dmkeras-serving
data:
@CONFIGS@
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: dmkeras-serving
  labels: {app.kubernetes.io/name: dmkeras-serving}
spec:
  # No `replicas`: the autoscaler below sets them.
  selector:
    matchLabels: {app.kubernetes.io/name: dmkeras-serving}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}  # needs one GPU to spare
  template:
    metadata:
      labels: {app.kubernetes.io/name: dmkeras-serving}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8501"
        prometheus.io/path: /monitoring/prometheus/metrics
    spec:
      automountServiceAccountToken: false
      # SIGTERM kills TF Serving with its requests in flight. The pod leaves its Service first, serves on while callers
      # move away and their last requests end (preStop), and is told to end only then.
      terminationGracePeriodSeconds: @GRACE@
      containers:
        - name: serving
          image: @IMAGE@
          args:
@FLAGS@
          ports:
            - {name: grpc, containerPort: 8500}
            - {name: rest, containerPort: 8501}
          lifecycle:
            preStop:
              exec: {command: [sleep, "@DRAIN@"]}
          # The ports open when every model has loaded and answered its warm-up requests.
          startupProbe:
            httpGet: {path: "@PROBE@", port: rest}
            periodSeconds: 5
            failureThreshold: 120
          readinessProbe:
            httpGet: {path: "@PROBE@", port: rest}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          livenessProbe:  # patient, since a busy server is not a dead one
            httpGet: {path: "@PROBE@", port: rest}
            periodSeconds: 10
            timeoutSeconds: 10
            failureThreshold: 6
          resources:
            requests:
              cpu: "2"
              memory: @MEMORY@
            limits:  # memory: a version change holds the old and the new version at once
              memory: @MEMORY@
              @GPU_LIMIT@
          securityContext: {allowPrivilegeEscalation: false}
          volumeMounts:
            - {name: models, mountPath: /models, readOnly: true}
            - {name: config, mountPath: /config, readOnly: true}
      volumes:
        - name: models
          persistentVolumeClaim: {claimName: dmkeras-models, readOnly: true}
        - name: config
          configMap: {name: dmkeras-serving}
---
apiVersion: v1
kind: Service
metadata:
  name: dmkeras-serving
spec:
  type: ClusterIP  # TF Serving asks for no token: what lies outside the cluster comes in through a proxy
  selector: {app.kubernetes.io/name: dmkeras-serving}
  ports:
    - {name: grpc, port: 8500, targetPort: grpc, appProtocol: kubernetes.io/h2c}
    - {name: rest, port: 8501, targetPort: rest, appProtocol: http}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: dmkeras-serving
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: dmkeras-serving}
  minReplicas: 2
  maxReplicas: 4
  metrics:  # the processor decodes and feeds while the GPU works; with a metrics adapter take the latency instead
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: 70}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 300}  # a new replica loads for minutes
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: dmkeras-serving
spec:
  minAvailable: 1
  selector:
    matchLabels: {app.kubernetes.io/name: dmkeras-serving}
"""
