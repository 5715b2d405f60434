/** A Tomcat 10 of Debian's packages (libtomcat10-java, tomcat10-common) with one small web application, in a folder of its own. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const tomcatHome = '/usr/share/tomcat10';
const servletApi = '/usr/share/java/tomcat10-servlet-api.jar';
const source = fileURLToPath(new URL('../programs/PageServlet.java', import.meta.url));

/** Whether Tomcat and a compiler are here. */
export const hasTomcat = () =>
  existsSync(join(tomcatHome, 'bin/bootstrap.jar')) && existsSync(servletApi) && !spawnSync('javac', ['-version']).error;

/**
 * Makes the folder of a Tomcat that serves the application on a port of 127.0.0.1, and gives the command that runs it in the foreground.
 * `options` are of the JVM.
 */
export function tomcatCommand(java, base, port, options = []) {
  const classes = join(base, 'webapps/ROOT/WEB-INF/classes');
  for (const folder of ['conf', 'logs', 'temp', 'work', 'webapps/ROOT/WEB-INF/classes'])
    mkdirSync(join(base, folder), { recursive: true, mode: 0o777 });
  const compiled = spawnSync('javac', ['-cp', servletApi, '-d', classes, source], { encoding: 'utf8' });
  if (compiled.status !== 0) throw new Error(`javac: ${compiled.stderr}`);
  writeFileSync(
    join(base, 'conf/server.xml'),
    `<?xml version="1.0" encoding="UTF-8"?>
<Server port="-1">
  <Service name="Catalina">
    <Connector address="127.0.0.1" port="${port}" protocol="HTTP/1.1" minSpareThreads="4"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" autoDeploy="false"/>
    </Engine>
  </Service>
</Server>
`,
  );
  writeFileSync(
    join(base, 'conf/web.xml'),
    '<?xml version="1.0" encoding="UTF-8"?>\n<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"/>\n',
  );
  const opens = ['java.lang', 'java.io', 'java.util', 'java.util.concurrent'].map((name) => `--add-opens=java.base/${name}=ALL-UNNAMED`);
  return [
    java,
    ...options,
    ...opens,
    '-cp',
    `${tomcatHome}/bin/bootstrap.jar:/usr/share/java/tomcat10-juli.jar`,
    `-Dcatalina.home=${tomcatHome}`,
    `-Dcatalina.base=${base}`,
    `-Djava.io.tmpdir=${join(base, 'temp')}`,
    'org.apache.catalina.startup.Bootstrap',
    'start',
  ];
}
