# The Kafka worker on an NVIDIA GPU: needs Docker with the NVIDIA Container Toolkit. docker-compose.yaml runs it.
#   docker build -t latentgrid .

# The wheels of torch bring CUDA's libraries, of the version in requirements.txt, so this needs none of them: `base` is
# the smallest image of that version, which makes the toolkit refuse a driver that is too old and bring nvidia-smi in.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
# Bytecode is compiled here, because the worker cannot write beside its code.
ENV PATH=/opt/uv/bin:$PATH UV_PYTHON_INSTALL_DIR=/opt/python UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /app
COPY requirements.txt ./
# uv is one of the pinned packages.
RUN python3 -m venv /opt/uv \
    && awk '/^uv==/ {found = 1} found {print} found && !/\\$/ {exit}' requirements.txt > /opt/uv/requirements.txt \
    && pip install --no-deps --require-hashes --requirement /opt/uv/requirements.txt
RUN uv venv --managed-python --python 3.13.18 .venv
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip sync --python .venv/bin/python --require-hashes requirements.txt
COPY pyproject.toml README.md LICENSE run.py ./
COPY conf conf
COPY models models
COPY nodes nodes
COPY demo_model demo_model
COPY latentgrid latentgrid
COPY pipeline pipeline
RUN uv pip install --python .venv/bin/python --no-deps --no-build-isolation --editable . \
    && .venv/bin/python -m compileall -q pipeline nodes \
    && XDG_CACHE_HOME=/opt/cache .venv/bin/python -m pipeline comfyui --path

FROM nvidia/cuda:13.0.2-base-ubuntu24.04
COPY --from=build /opt/python /opt/python
COPY --from=build /app /app
# A volume takes over the owner of the folder that it is mounted on; a folder of the host must belong to this user.
RUN groupadd --gid 10001 latentgrid \
    && useradd --uid 10001 --gid latentgrid --create-home latentgrid \
    && install --directory --owner=latentgrid --group=latentgrid /models /exchange /app/outputs
COPY --from=build --chown=latentgrid:latentgrid /opt/cache /opt/cache
ENV PATH=/app/.venv/bin:$PATH XDG_CACHE_HOME=/opt/cache PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001
VOLUME ["/models", "/exchange", "/app/outputs"]

# http.client, because it asks no proxy. ComfyUI starts, and the models are checked, before the port is there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 CMD ["python", "-c", "\
from http.client import HTTPConnection; \
health = HTTPConnection('127.0.0.1', 9464, timeout=4); \
health.request('GET', '/healthz'); \
raise SystemExit(health.getresponse().status != 200)"]

# SIGTERM lets the request in hand end (worker.grace_seconds): stop it with `docker stop --time 60`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "pipeline"]
CMD ["worker", "worker.roots=[/exchange]", "worker.output_root=/exchange/results", "comfyui.models=[/models]"]
