# Images of Seele. docker, buildah and podman build this file alike:
#
#   operator     the operator and the `seele` command, without PyTorch    docker build --target operator -t ghcr.io/seele-dev/seele-operator:0.1.0 .
#   trainer      trainer pods on GPUs; rollout pods use the stock vLLM image  docker build --target trainer -t seele:0.1.0 .
#   trainer-cpu  trainers, rollout servers and the quickstart's model, for machines without a GPU
#                                                                          docker build --target trainer-cpu -t seele:0.1.0-cpu .
#
# `tools/images.sh` builds them where there is no docker and no registry.

# The base, by its exact version. To hold it down to the byte, or to take it from a mirror, name another with
# --build-arg PYTHON_IMAGE=registry.example.org/python@sha256:…; it must be Debian or Ubuntu, with Python 3.11 and its venv.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# ---- What all builds start from: pip in an environment of its own, which no image has ----
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# An index of one's own, if any, comes from a mounted /etc/pip.conf: see tools/images.sh.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build/pip && python3 -m venv --without-pip /opt/seele/venv
# What is to be installed comes before the sources: a change of ours leaves the layers of packages as they are.
COPY pyproject.toml requirements.lock ./
COPY tools/requirements.py tools/setup.sh ./tools/

# ---- Our own code as a wheel ----
FROM build AS wheel
RUN pip/bin/pip install --constraint requirements.lock setuptools
COPY README.md ./
COPY operator ./operator
COPY trainer ./trainer
RUN pip/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# ---- operator ----
FROM build AS operator-build
RUN python3 tools/requirements.py wanted operator >requirements.txt \
    && pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-compile \
       --constraint requirements.lock --requirement requirements.txt
COPY --from=wheel /wheels /wheels
# The root file system is read-only where this runs, so bytecode is made here; and only of the modules that are used: all of
# the Kubernetes client's would be 50 MB.
RUN pip/bin/pip --python /opt/seele/venv/bin/python3 install --no-compile --no-deps /wheels/*.whl \
    && env -u PYTHONDONTWRITEBYTECODE /opt/seele/venv/bin/python3 -c 'import seele_operator.cli, seele_operator.operator_command' \
    && /opt/seele/venv/bin/seele crd >/dev/null

FROM ${PYTHON_IMAGE} AS operator
COPY --from=operator-build /opt/seele /opt/seele
ENV PATH=/opt/seele/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/seele
# A number, so that Kubernetes can see that it is not root. The user of the pods has no entry in /etc/passwd, and needs none.
USER 1000:1000
EXPOSE 9401
# For docker and podman; Kubernetes asks by the probes of the chart.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9401/healthz', timeout=4)"]
ENTRYPOINT ["seele"]
CMD ["operator"]
# Last, since they change with each commit.
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seele-operator" \
      org.opencontainers.image.description="Turns SeeleRuns into trainer and rollout pods, and looks after them" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/seele-dev/seele" \
      org.opencontainers.image.documentation="https://github.com/seele-dev/seele/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="seele-dev" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
