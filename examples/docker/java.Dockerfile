# A Java service that is already warm when its container starts. README.md tells what each line is for.
FROM eclipse-temurin:17-jdk AS compile
COPY quickstart/Search.java /srv/
RUN javac -d /srv/classes /srv/Search.java

FROM eclipse-temurin:17-jre AS java

FROM java AS warm
COPY --from=node:20-bookworm-slim /usr/local/bin/node /usr/local/bin/
ADD warp-tool-*.tgz /opt/
COPY docker/warm-up.mjs /opt/
COPY --from=compile --chown=1001:1001 /srv/classes /srv/classes
RUN mkdir /srv/image && chown 1001:1001 /srv/image
USER 1001:1001
RUN node /opt/package/bin/run.js run --image /srv/image --compression lz4 --checkpoint-when 'node /opt/warm-up.mjs 300' -- \
      java -Xmx256m -cp /srv/classes Search 8080 0.0.0.0 \
    || [ $? -eq 137 ]

FROM java
COPY --from=warm /opt/package/native/build/warp-restore /usr/local/bin/
COPY --from=warm --chown=1001:1001 /srv /srv
USER 1001:1001
EXPOSE 8080
ENTRYPOINT ["warp-restore", "/srv/image"]
