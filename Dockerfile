# Images of Seele. docker, buildah and podman build this file alike:
#
#   operator     the operator and the `seele` command, without PyTorch
#   trainer      trainer pods on GPUs; rollout pods use the stock vLLM image
#   trainer-cpu  trainers, rollout servers and the quickstart's model, for machines without a GPU
#
#   docker build --target operator -t ghcr.io/seele-dev/seele-operator:0.1.0 .
#   docker build --target trainer -t ghcr.io/seele-dev/seele:0.1.0 .
#   docker build --target trainer-cpu -t ghcr.io/seele-dev/seele:0.1.0-cpu .
#
# `tools/images.sh` builds them where there is no docker and no registry.

# The base, by its exact version. To hold it down to the byte, or to take it from a mirror, name another with
# --build-arg PYTHON_IMAGE=registry.example.org/python@sha256:…; it must be Debian or Ubuntu, with Python 3.11 and its venv.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# ---- What pip is to install. Later stages copy these lists, so only another list makes them install again ----
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /requirements
COPY pyproject.toml requirements.lock ./
COPY tools/requirements.py tools/setup.sh ./tools/
# triton is PyTorch's to choose on a GPU; the lock has the one of a machine without.
RUN python3 tools/requirements.py wanted operator >operator.txt \
    && python3 tools/requirements.py locked >locked.txt \
    && echo "torch==$(python3 tools/requirements.py version torch)" >torch.txt \
    && { cat torch.txt; python3 tools/requirements.py wanted trainer; } >trainer.txt \
    && grep -v '^triton==' locked.txt >locked-for-gpus.txt

# ---- What all builds start from: pip in an environment of its own, which no image has ----
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# An index of one's own, if any, comes from a mounted /etc/pip.conf: see tools/images.sh.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build/pip && python3 -m venv --without-pip /opt/seele/venv

# ---- Our own code, in the folders where an image has it ----
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
# Seele talks to the API server in paths and plain objects: the client's classes for every API, 55 MB, are used by nobody.
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-compile --constraint locked.txt --requirement operator.txt \
    && rm -r /opt/seele/venv/lib/python3*/site-packages/kubernetes/client/api \
             /opt/seele/venv/lib/python3*/site-packages/kubernetes/aio/client/api
COPY --from=code /code/opt/seele /opt/seele
# The root file system is read-only where this runs, so bytecode is made here, and only of modules that are used.
RUN /opt/seele/venv/bin/python3 -c 'import seele_operator.cli, seele_operator.controller.process' \
    && /opt/seele/venv/bin/seele crd >/dev/null

FROM image AS operator
COPY --from=operator-build /opt/seele /opt/seele
# A number, so that Kubernetes sees that it is not root. This user needs no entry in /etc/passwd: variables name it.
USER 1000:1000
EXPOSE 9401
# For docker and podman; Kubernetes asks by the probes of the chart.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9401/healthz', timeout=4)"]
CMD ["operator"]
# Last, for they change with each commit.
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seele-operator" \
      org.opencontainers.image.description="Turns SeeleRuns into trainer and rollout pods, and looks after them" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# ---- trainer: PyTorch's packages bring CUDA's libraries, and the node its driver ----
FROM build AS trainer-packages
COPY --from=requirements /requirements/trainer.txt /requirements/locked-for-gpus.txt ./
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --constraint locked-for-gpus.txt --requirement trainer.txt
# PyTorch's own attention, which Seele uses, has the kernels of FlashAttention in it. For a model whose code asks for the package:
# --build-arg FLASH_ATTENTION=flash-attn, or the address of a wheel. Where there is none that fits, the image goes without.
ARG FLASH_ATTENTION=""
# hadolint ignore=DL3013
RUN if [ -z "$FLASH_ATTENTION" ]; then exit 0; fi; \
    if pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-build-isolation --constraint locked-for-gpus.txt "$FLASH_ATTENTION" \
      && /opt/seele/venv/bin/python3 -c 'import flash_attn'; then exit 0; fi; \
    echo "no $FLASH_ATTENTION fits this PyTorch: left out"; \
    pip/bin/pip --python /opt/seele/venv/bin/python3 uninstall --yes flash-attn

FROM image AS trainer
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=trainer-packages /opt/seele /opt/seele
COPY --from=code /code/opt/seele /opt/seele
USER 1000:1000
EXPOSE 9400 29500
# No HEALTHCHECK: of a gang only trainer 0 answers, and how long it may be silent is the run's to say. The operator asks it.
CMD ["--help"]
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seele" \
      org.opencontainers.image.description="Trainer pods of SeeleRuns: PyTorch with CUDA, and DeepSpeed" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# ---- trainer-cpu: the environment that the tests run in, and what the quickstart names ----
FROM build AS trainer-cpu-packages
# Where this index cannot be reached, pip looks where it is configured to.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=requirements /requirements/torch.txt ./
RUN install="pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-deps --requirement torch.txt" \
    && { $install --retries 1 --timeout 20 --index-url "$TORCH_CPU_INDEX" || $install; }
# The lock is complete, so nothing is resolved: see tools/setup.sh.
COPY --from=requirements /requirements/locked.txt ./
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-deps --requirement locked.txt

# The quickstart's model and problems, in the folder that its SeeleRun names.
FROM trainer-cpu-packages AS quickstart-model
WORKDIR /opt/seele
COPY --from=code /code/opt/seele ./
RUN venv/bin/python3 -m seele_trainer.quickstart --out .cache/quickstart

# vLLM without a GPU asks how memory is laid out. The library is copied: a command run in an image leaves behind the empty folders
# of what the build had mounted.
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
# vLLM's sampler asks PyTorch to compile it, for which there is no C++ compiler here: its first request would end the server.
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
