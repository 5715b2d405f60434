# The same for a service on Node.js. README.md tells what each line is for.
FROM node:20-bookworm-slim AS node

FROM node AS warm
ADD warp-tool-*.tgz /opt/
COPY docker/warm-up.mjs /opt/
COPY quickstart/server.mjs /srv/
RUN mkdir /srv/image && chown 1001:1001 /srv/image
USER 1001:1001
RUN node /opt/package/bin/run.js run --image /srv/image --compression lz4 --checkpoint-when 'node /opt/warm-up.mjs 100' -- \
      node /srv/server.mjs 8080 0.0.0.0 \
    || [ $? -eq 137 ]

FROM node
COPY --from=warm /opt/package/native/build/warp-restore /usr/local/bin/
COPY --from=warm --chown=1001:1001 /srv /srv
USER 1001:1001
EXPOSE 8080
ENTRYPOINT ["warp-restore", "/srv/image"]
