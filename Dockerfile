# Images of Seele, for docker, buildah and podman:
#
#   operator     the operator and the `seele` command, without PyTorch
#   trainer      trainer pods on GPUs; rollout pods use the stock vLLM image
#   trainer-cpu  trainers, rollout servers and the quickstart's model and problems, without a GPU
#
#   docker build --target operator -t ghcr.io/seele-dev/seele-operator:0.1.0 .
#   docker build --target trainer -t ghcr.io/seele-dev/seele:0.1.0 .
#   docker build --target trainer-cpu -t ghcr.io/seele-dev/seele:0.1.0-cpu .
#
# `tools/images.sh` builds them without docker and without a registry.

# The base image, by its exact version. To pin a digest or to use a mirror, pass
# --build-arg PYTHON_IMAGE=registry.example.org/python@sha256:…. It must be Debian or Ubuntu with Python 3.11 and venv.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# ---- What pip installs. Later stages copy these lists, so they install again only if a list changes ----
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /requirements
COPY pyproject.toml requirements.lock ./
COPY tools/requirements.py tools/setup.sh ./tools/
# On a GPU, PyTorch chooses the version of triton; the lock has the one for CPUs.
RUN python3 tools/requirements.py wanted operator >operator.txt \
    && python3 tools/requirements.py locked >locked.txt \
    && echo "torch==$(python3 tools/requirements.py version torch)" >torch.txt \
    && { cat torch.txt; python3 tools/requirements.py wanted trainer wandb mlflow; } >trainer.txt \
    && grep -v '^triton==' locked.txt >locked-for-gpus.txt

# ---- The start of all builds: pip in an environment of its own, which is in no image ----
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# Your own package index, if any, comes from a mounted /etc/pip.conf: see tools/images.sh.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build/pip && python3 -m venv --without-pip /opt/seele/venv

# ---- Our own code, in the folders that it has in an image ----
FROM build AS code
COPY --from=requirements /requirements/locked.txt ./
RUN pip/bin/pip install --constraint locked.txt setuptools
COPY README.md pyproject.toml ./
COPY operator ./operator
COPY trainer ./trainer
RUN pip/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-deps --root /code wheels/*.whl

# ---- What all images share ----
FROM ${PYTHON_IMAGE} AS image
ENV PATH=/opt/seele/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp USER=seele LOGNAME=seele
WORKDIR /opt/seele
ENTRYPOINT ["seele"]
LABEL org.opencontainers.image.source="https://github.com/seele-dev/seele" \
      org.opencontainers.image.documentation="https://github.com/seele-dev/seele/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="seele-dev"

# ---- operator ----
FROM build AS operator-build
COPY --from=requirements /requirements/operator.txt /requirements/locked.txt ./
# Seele addresses the API server by paths and plain objects. It does not need the client's classes for every API, 55 MB.
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-compile --constraint locked.txt --requirement operator.txt \
    && rm -r /opt/seele/venv/lib/python3*/site-packages/kubernetes/client/api \
             /opt/seele/venv/lib/python3*/site-packages/kubernetes/aio/client/api
COPY --from=code /code/opt/seele /opt/seele
# At run time the root file system is read-only, so bytecode is made here, and only for modules that are used.
RUN /opt/seele/venv/bin/python3 -c 'import seele_operator.cli, seele_operator.controller.process' \
    && /opt/seele/venv/bin/seele crd >/dev/null

FROM image AS operator
COPY --from=operator-build /opt/seele /opt/seele
# A number, so that Kubernetes can see that it is not root. The user needs no entry in /etc/passwd: variables name it.
USER 1000:1000
EXPOSE 9401
# For docker and podman. Kubernetes uses the probes in the chart.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9401/healthz', timeout=4)"]
CMD ["operator"]
# Last, because they change with each commit.
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seele-operator" \
      org.opencontainers.image.description="Turns SeeleRuns into trainer and rollout pods, and manages them" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# ---- trainer: PyTorch's packages contain CUDA's libraries; the driver is the node's ----
FROM build AS trainer-packages
COPY --from=requirements /requirements/trainer.txt /requirements/locked-for-gpus.txt ./
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --constraint locked-for-gpus.txt --requirement trainer.txt
# PyTorch's own attention, which Seele uses, includes the kernels of FlashAttention: the package is not needed.

FROM image AS trainer
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=trainer-packages /opt/seele /opt/seele
COPY --from=code /code/opt/seele /opt/seele
USER 1000:1000
EXPOSE 9400 29500
# No HEALTHCHECK: only trainer 0 of a gang answers, and the run decides how long it may be silent. The operator checks it.
CMD ["--help"]
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seele" \
      org.opencontainers.image.description="Trainer pods of SeeleRuns: PyTorch with CUDA, and DeepSpeed" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# ---- trainer-cpu: the environment that the tests run in, and the quickstart's files ----
FROM build AS trainer-cpu-packages
# If this index cannot be reached, pip uses the one that it is configured with.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=requirements /requirements/torch.txt ./
RUN install="pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-deps --requirement torch.txt" \
    && { $install --retries 1 --timeout 20 --index-url "$TORCH_CPU_INDEX" || $install; }
# The lock is complete, so there is nothing to resolve: see tools/setup.sh.
COPY --from=requirements /requirements/locked.txt ./
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-deps --requirement locked.txt

# The quickstart's model and problems, in the folder that its SeeleRun names.
FROM trainer-cpu-packages AS quickstart-model
WORKDIR /opt/seele
COPY --from=code /code/opt/seele ./
RUN venv/bin/python3 -m seele_trainer.quickstart --out .cache/quickstart

# vLLM on CPUs needs libnuma. The library is copied, because a command run in an image leaves empty folders behind where the build
# had mounted something.
FROM build AS numa
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/* \
    && mkdir /opt/seele/lib && cp -L /usr/lib/*/libnuma.so.1 /opt/seele/lib/

FROM image AS trainer-cpu
ENV LD_LIBRARY_PATH=/opt/seele/lib
COPY --from=trainer-cpu-packages /opt/seele /opt/seele
COPY --from=numa /opt/seele/lib /opt/seele/lib
COPY --from=quickstart-model /opt/seele/.cache /opt/seele/.cache
COPY --from=code /code/opt/seele /opt/seele
# vLLM's sampler asks PyTorch to compile it. There is no C++ compiler here, so the first request would end the server.
ENV TORCHDYNAMO_DISABLE=1
USER 1000:1000
EXPOSE 8000 9400 29500
# No HEALTHCHECK, as above.
CMD ["--help"]
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seele-cpu" \
      org.opencontainers.image.description="Trainers and rollout servers of SeeleRuns without a GPU, with the quickstart's model and problems" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
