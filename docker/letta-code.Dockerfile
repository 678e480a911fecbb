# An App Server of Letta Code, kept running by promptyoself: the service letta-code of
# docker-compose.yml. It is an image of its own, since only few need its 400 MB, and since the agents'
# tools, which may do anything in it, are to be away from the log.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY promptyoself ./promptyoself
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .
RUN python -m venv /opt/venv && /opt/venv/bin/python -m pip install --no-cache-dir /dist/*.whl
# In an environment of its own. It brings its own Node.
ARG LETTA_CODE=0.34.12
RUN python -m venv /opt/letta-code \
    && /opt/letta-code/bin/python -m pip install --no-cache-dir "letta==$LETTA_CODE"

FROM python:3.13-slim
# Letta Code keeps each agent's memory in a repository of git.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /home/letta --shell /bin/bash letta \
    && install --directory --mode 0700 --owner letta --group letta /home/letta/work
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/letta-code /opt/letta-code
ENV PATH=/opt/venv/bin:/opt/letta-code/bin:$PATH HOME=/home/letta PYTHONUNBUFFERED=1
USER letta
WORKDIR /home/letta/work
VOLUME /home/letta
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=20s --timeout=15s --start-period=60s --retries=2 \
    CMD ["promptyoself", "letta-code", "status"]
ENTRYPOINT ["promptyoself"]
CMD ["letta-code", "up", "--listen", "ws://0.0.0.0:4500"]
