# bids_brainlm: BIDS-App. Build: docker build -t bids_brainlm .
# BASE can be pinned by digest: --build-arg BASE=python@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# The CPU build of PyTorch by default; for CUDA: --build-arg TORCH="torch==2.13.0" with the index of CUDA wheels
ARG TORCH="torch==2.13.0"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv
COPY requirements/constraints.txt /src/requirements/constraints.txt
RUN /opt/venv/bin/pip install "${TORCH}" -c /src/requirements/constraints.txt
COPY . /src
RUN /opt/venv/bin/pip install "/src[demo]" -c /src/requirements/constraints.txt \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +

FROM ${BASE}
LABEL org.opencontainers.image.title="bids_brainlm" \
      org.opencontainers.image.description="Model brain activity during stories with language models, as a BIDS-App" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# Any user may run it; nothing needs a home folder.
RUN mkdir -p /data /out /work /opt/templateflow /opt/models && chmod 1777 /out /work \
    && chmod -R a+rX /opt && useradd --create-home --uid 1000 brainlm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache HF_HOME=/tmp/huggingface
# Models and atlases ahead of time (needs the network while building):
# --build-arg MODELS="google-bert/bert-base-uncased" --build-arg ATLASES="Schaefer2018_400Parcels17Networks"
ARG MODELS=""
ARG ATLASES=""
RUN if [ -n "${MODELS}" ]; then bids_brainlm-fetch --model ${MODELS} --models-dir /opt/models; fi; \
    if [ -n "${ATLASES}" ]; then \
      bids_brainlm-fetch --atlas ${ATLASES} --space MNI152NLin2009cAsym; fi; \
    chmod -R a+rX /opt/models /opt/templateflow
USER brainlm
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/bids_brainlm"]
