# fedloom as a container: what every pod of a rendered workflow runs.
#
#   docker build --build-arg PYTHON_DIGEST=sha256:… --build-arg DATASETS=imu-watch -t fedloom:0.1.0 .
#
# The base is pinned by tag and digest; without a digest the build stops. Look it up with
# `docker buildx imagetools inspect python:3.11-slim-bookworm`.
ARG PYTHON_TAG=3.11-slim-bookworm
ARG PYTHON_DIGEST

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS base
# The official images come without bytecode of the standard library, and a pod cannot keep any: all would compile it.
RUN python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM base AS build
# PyTorch's CPU build; set it to https://pypi.org/simple for the default one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Data sets that fedloom prepares by itself, such as imu-watch: pods have neither network nor a place for them.
ARG DATASETS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/fedloom
ENV PATH=/opt/fedloom/bin:$PATH FEDLOOM_CACHE=/opt/fedloom/cache
# The large one first, so that it is kept while the code changes. Versions are those of pyproject.toml.
# hadolint ignore=DL3013
RUN pip install "torch>=2.8,<2.14" --index-url "${TORCH_INDEX}"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY fedloom fedloom
# hadolint ignore=DL3013
RUN pip install ".[s3]"
RUN mkdir -p "${FEDLOOM_CACHE}" \
 && for name in ${DATASETS}; do fedloom data prepare "${name}" || exit 1; done

FROM base
LABEL org.opencontainers.image.title="fedloom" \
      org.opencontainers.image.description="Turns federated-learning job specs into DAG workflows" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/fedloom /opt/fedloom
# The root file system is read-only in a pod, and /tmp is the only place to write.
ENV PATH=/opt/fedloom/bin:$PATH \
    FEDLOOM_CACHE=/opt/fedloom/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["fedloom"]
