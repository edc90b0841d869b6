# syntax=docker/dockerfile:1
# Targets: services (every TypeScript service; the command says which), student
# (Python: PyTorch), standalone (all of it and an embedded Postgres).
#
#   docker build --target standalone --tag tutelage .
#   docker run --publish 8080:8080 --env TUTELAGE_TOKEN --volume tutelage:/var/lib/tutelage tutelage
#
# --build-arg TORCH=cpu (the default) takes PyTorch's CPU build from PyTorch's own index, 1 GB;
# TORCH=cuda takes the pinned and hashed CUDA build from the index of all other packages, 6 GB.

FROM node:24-bookworm-slim AS base
WORKDIR /app
ENV TUTELAGE_HOME=/var/lib/tutelage

# What is installed depends on these files alone, so a change of code does not install again.
FROM base AS manifests
COPY package.json package-lock.json ./
COPY proto/package.json proto/
COPY cli/package.json cli/
COPY services/platform/package.json services/platform/
COPY services/datasets/package.json services/datasets/
COPY services/training/package.json services/training/
COPY services/evaluation/package.json services/evaluation/
COPY services/teacher/package.json services/teacher/
COPY services/campaigns/package.json services/campaigns/
COPY services/gateway/package.json services/gateway/
COPY services/standalone/package.json services/standalone/
COPY tools/setup.mjs tools/children.mjs tools/

FROM manifests AS build
RUN --mount=type=cache,target=/root/.npm node tools/setup.mjs --only="node packages"
COPY tsconfig.json tsconfig.base.json ./
COPY proto proto
COPY services/platform services/platform
COPY services/datasets services/datasets
COPY services/training services/training
COPY services/evaluation services/evaluation
COPY services/teacher services/teacher
COPY services/campaigns services/campaigns
COPY services/gateway services/gateway
COPY services/standalone services/standalone
COPY cli cli
RUN node tools/setup.mjs --only="generated code,typescript"

# What runs: no compilers, no linters, no tests' packages.
FROM manifests AS runtime
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --ignore-scripts --no-audit --no-fund
RUN node tools/setup.mjs --only="postgres binaries"

FROM base AS services
COPY --from=runtime /app/node_modules node_modules
COPY --from=build /app/package.json ./
COPY --from=build /app/proto proto
COPY --from=build /app/services services
COPY --from=build /app/cli cli
COPY migrations migrations
RUN install --directory --owner=1000 --group=1000 /var/lib/tutelage
USER 1000:1000
VOLUME /var/lib/tutelage
# Beyond the container's own loopback, so it starts only with TUTELAGE_TOKEN or TUTELAGE_TOKEN_FILE.
ENV GATEWAY_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node", "services/platform/dist/healthcheck.js", "http://127.0.0.1:8080/health"]
CMD ["node", "--enable-source-maps", "services/gateway/dist/main.js"]

FROM base AS python
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*

FROM python AS python-packages
ARG TORCH=cpu
COPY package.json ./
COPY tools/setup.mjs tools/children.mjs tools/uv.txt tools/
COPY services/student/requirements.txt services/student/
RUN --mount=type=cache,target=/root/.cache TUTELAGE_TORCH=$TORCH node tools/setup.mjs --only="python environment,python packages"
COPY services/student/models.txt services/student/
RUN --mount=type=cache,target=/root/.cache node tools/setup.mjs --only="models"
COPY proto proto
COPY services/student services/student
RUN .venv/bin/python services/student/generate.py

FROM python AS student
COPY --from=python-packages /app/.venv .venv
COPY --from=python-packages /app/services/student services/student
RUN install --directory --owner=1000 --group=1000 /var/lib/tutelage
USER 1000:1000
VOLUME /var/lib/tutelage
WORKDIR /app/services/student
ENV STUDENT_LISTEN=0.0.0.0:50056 HF_HOME=/var/lib/tutelage/hub
EXPOSE 50056
HEALTHCHECK --interval=10s --timeout=10s --start-period=180s CMD ["/app/.venv/bin/python", "-m", "tutelage_student.healthcheck", "127.0.0.1:50056"]
CMD ["/app/.venv/bin/python", "-m", "tutelage_student"]

# Also what the embedded teacher needs: its process, and the Python packages that bring its model.
FROM python AS standalone
COPY --from=python-packages /app/.venv .venv
COPY --from=runtime /app/node_modules node_modules
COPY --from=build /app/package.json ./
COPY --from=build /app/proto proto
COPY --from=build /app/services services
COPY --from=build /app/cli cli
COPY --from=python-packages /app/services/student services/student
COPY migrations migrations
RUN install --directory --owner=1000 --group=1000 /var/lib/tutelage
USER 1000:1000
VOLUME /var/lib/tutelage
# Beyond the container's own loopback, so it starts only with TUTELAGE_TOKEN or TUTELAGE_TOKEN_FILE.
ENV TUTELAGE_HOST=0.0.0.0 HF_HOME=/var/lib/tutelage/hub
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=240s CMD ["node", "services/platform/dist/healthcheck.js", "http://127.0.0.1:8080/health"]
CMD ["node", "--enable-source-maps", "services/standalone/dist/main.js"]
