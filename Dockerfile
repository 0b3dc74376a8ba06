# bids_brainlm, a BIDS-App. What the arguments mean: container/install.sh and docs/how-to/containers.md
#   docker build -t bids_brainlm .
# BASE: any image with Python 3.11, its venv module and glibc. The default is Python 3.11.14 on Debian
# 12 (3.11.14-slim-bookworm), pinned by the digest
# of its multi-architecture index; for security updates of its system packages, give a newer one
# (docker buildx imagetools inspect python:3.11-slim-bookworm shows today's).
ARG BASE=python@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${BASE} AS build
ARG VARIANT=cpu
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX=""
COPY container/install.sh /src/container/install.sh
COPY requirements /src/requirements
RUN sh /src/container/install.sh torch
ARG MODELS="minilm google-bert/bert-base-uncased"
ARG ATLASES="Schaefer2018_400Parcels17Networks"
ARG SPACE="MNI152NLin2009cAsym"
ARG SPACY="en_core_web_lg"
COPY . /src
RUN sh /src/container/install.sh package
RUN sh /src/container/install.sh resources
RUN sh /src/container/install.sh strip

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=""
ARG REPOSITORY=""
ARG CREATED=""
# The name under which the image will be found, such as docker://registry/name@sha256:...
ARG IMAGE_URI=""
LABEL org.opencontainers.image.title="bids_brainlm" \
      org.opencontainers.image.description="Model brain activity during stories with language models, as a BIDS-App" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${REPOSITORY}" \
      org.opencontainers.image.created="${CREATED}"
# Mount points for runtimes that cannot make them. Any user may run the image; no home is needed.
RUN mkdir /data /out /work && chmod 1777 /out /work \
    && useradd --no-log-init --no-create-home --home-dir /nonexistent --uid 1000 brainlm
COPY --from=build /opt /opt
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LC_ALL=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HF_HUB_OFFLINE=1 \
    HF_HUB_CACHE=/opt/models \
    HF_HUB_DISABLE_TELEMETRY=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    HF_HOME=/tmp/bids_brainlm/huggingface \
    MPLCONFIGDIR=/tmp/bids_brainlm/matplotlib \
    NLTK_DATA=/tmp/bids_brainlm/nltk \
    NUMBA_CACHE_DIR=/tmp/bids_brainlm/numba \
    TORCH_HOME=/tmp/bids_brainlm/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/bids_brainlm/torchinductor \
    XDG_CACHE_HOME=/tmp/bids_brainlm/cache \
    BRAINLM_CONTAINER_TYPE=docker \
    BRAINLM_CONTAINER_TAG=bids_brainlm:${VERSION} \
    BRAINLM_CONTAINER_URI=${IMAGE_URI}
USER 1000
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/bids_brainlm"]
