FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY promptyoself ./promptyoself
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .
RUN python -m venv /opt/venv
RUN for wheel in /dist/*.whl; do /opt/venv/bin/python -m pip install --no-cache-dir "${wheel}[letta-code,mcp,metrics,notify]"; done

FROM python:3.13-slim
# A fixed uid, so that a volume keeps its owner over rebuilds. The log is made 0600, its folder 0700.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin promptyoself \
    && install --directory --mode 0700 --owner promptyoself --group promptyoself /data
COPY --from=build /opt/venv /opt/venv
# The file of settings is in the volume too, so that `notify add` in one container is for all of them.
ENV PATH=/opt/venv/bin:$PATH PROMPTYOSELF_VAR=/data XDG_CONFIG_HOME=/data/config PYTHONUNBUFFERED=1
USER promptyoself
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
# Unhealthy within a minute and a half after the loop has stopped to make passes.
HEALTHCHECK --interval=20s --timeout=15s --start-period=20s --retries=2 \
    CMD ["promptyoself", "doctor", "--quick", "--skip-letta", "--require-loop"]
ENTRYPOINT ["promptyoself"]
CMD ["execute", "--loop"]
