# sish, its page and its commands, with a CPU build of torch: docker build --tag sish .
# Base images are pinned by version and not by digest, because none could be looked up where this file was written.
ARG PYTHON=python:3.12.12-slim-bookworm

FROM ${PYTHON} AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM ${PYTHON}
LABEL org.opencontainers.image.title="sish" \
      org.opencontainers.image.description="Find similar whole-slide images. For research only, not for diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-3-Clause"
# 1000 is the first user of most machines, so that files in a mounted folder belong to that user
RUN useradd --create-home --uid 1000 sish && install --directory --owner sish /index /slides /weights
COPY constraints.txt /tmp/
# torch comes first: what follows finds it there, and takes no CUDA. 2.13.0+cpu is newer than 2.13.0 to pip; the rest of what
# torch needs is not on that index in the versions of constraints.txt
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu torch
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /wheel/*.whl)[interop,postgres,serve,tables]"

USER 1000
WORKDIR /index
# Kernels of numba and caches of matplotlib: a folder that any user of the container may write to
ENV NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1
# /index: indexes; /slides: slides, which are only read; /weights: weights of encoders that are not in the wheel
VOLUME ["/index", "/slides", "/weights"]
EXPOSE 8080
# Only for `sish serve`: without a token it refuses, and so it lives. Other commands end before anybody asks.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/'); assert c.getresponse().status in (200, 401)"]
ENTRYPOINT ["sish"]
CMD ["--help"]
