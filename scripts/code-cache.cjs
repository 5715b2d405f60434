// Writes the compiled code of dist/quick.cjs, for bin/run.js. V8 puts in what has run until then: the start of the module, and one command.
'use strict';
const { mkdtempSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { code, compile, evaluate } = require('../bin/run.js');

const directory = mkdtempSync(join(tmpdir(), 'warp-tool-build-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

// The smallest core file: an ELF header.
const core = Buffer.alloc(64);
core.write('\x7fELF\x02\x01\x01', 'latin1');
core.writeUInt16LE(4, 16); // ET_CORE
core.writeUInt16LE(62, 18); // EM_X86_64
writeFileSync(join(directory, 'core'), core);

const script = compile();
const { main } = evaluate(script);
main(['show', join(directory, 'core')]).then(() => writeFileSync(code, script.createCachedData()));
