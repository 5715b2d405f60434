/** What completion and manual pages need to know of a command; oclif's manifest has it. */
export interface CommandFacts {
  name: string;
  summary: string;
  description: string;
  examples: string[];
  args: { name: string; description: string; required: boolean }[];
  flags: FlagFacts[];
}

export interface FlagFacts {
  name: string;
  char: string | null;
  description: string;
  /** Null for a switch. */
  value: { name: string; options: readonly string[] } | null;
  multiple: boolean;
}

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** Processes that can be checkpointed, by the engine's sockets: starting Node.js at each key press would be felt. */
const PIDS = String.raw`sed -n 's,.*@warp-tool/[0-9]*/\([0-9]*\)$,\1,p' /proc/net/unix`;

/** A script that completes commands, flags, their values, pids and files. */
export function completionScript(shell: Shell, program: string, commands: readonly CommandFacts[]): string {
  const make = { bash: bashScript, zsh: zshScript, fish: fishScript }[shell];
  return make(program, commands);
}

function spellings({ name, char }: FlagFacts): string[] {
  return char === null ? [`--${name}`] : [`--${name}`, `-${char}`];
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Names that an argument can only be one of, for commands that take a command's name or a shell's. */
function choices(command: CommandFacts, commands: readonly CommandFacts[]): string[] {
  const names = command.args.map((argument) => argument.name);
  if (names.includes('shell')) return [...shells];
  return names.includes('command') ? commands.map(({ name }) => name) : [];
}

function bashScript(program: string, commands: readonly CommandFacts[]): string {
  const ident = `_${program.replaceAll('-', '_')}`;
  const values: string[] = [];
  const flags: string[] = [];
  const words: string[] = [];
  for (const command of commands) {
    for (const flag of command.flags) {
      if (!flag.value) continue;
      const reply = flag.value.options.length > 0 ? `-W '${flag.value.options.join(' ')}'` : '-f';
      const patterns = spellings(flag).map((spelling) => `'${command.name} ${spelling}'`);
      values.push(`    ${patterns.join('|')}) COMPREPLY=($(compgen ${reply} -- "$cur")); return ;;`);
    }
    flags.push(`    ${command.name}) flags='${command.flags.flatMap(spellings).join(' ')}' ;;`);
    const named = choices(command, commands);
    if (named.length > 0) words.push(`    ${command.name}) COMPREPLY=($(compgen -W '${named.join(' ')}' -- "$cur")); return ;;`);
  }
  return `# Completion of ${program} for bash: source this file.
${ident}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command='' flags='' index
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    if [[ \${COMP_WORDS[index]} == -- ]]; then
      COMPREPLY=($(compgen -cf -- "$cur"))
      return
    fi
    if [[ -z $command && \${COMP_WORDS[index]} != -* ]]; then command=\${COMP_WORDS[index]}; fi
  done
  if [[ -z $command ]]; then
    COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')}' -- "$cur"))
    return
  fi
  case "$command $prev" in
${values.join('\n')}
  esac
  case "$command" in
${flags.join('\n')}
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    return
  fi
  case "$command" in
    checkpoint) COMPREPLY=($(compgen -W "$(${PIDS})" -- "$cur")); return ;;
${words.join('\n')}
  esac
  COMPREPLY=($(compgen -f -- "$cur"))
}
complete -o filenames -F ${ident} ${program}
`;
}

function zshScript(program: string, commands: readonly CommandFacts[]): string {
  const ident = `_${program.replaceAll('-', '_')}`;
  // Colons and brackets have a meaning in specifications.
  const plain = (text: string): string => text.replaceAll(/[[\]\\:]/g, String.raw`\$&`);
  const specification = (flag: FlagFacts): string[] => {
    const value = flag.value === null ? '' : flag.value.options.length > 0 ? `:value:(${flag.value.options.join(' ')})` : ':value:_files';
    return spellings(flag).map((spelling) => quoted(`${flag.multiple ? '*' : ''}${spelling}[${plain(flag.description)}]${value}`));
  };
  const rest = (command: CommandFacts): string => {
    if (command.name === 'checkpoint') return `'1:process:${ident}_pids'`;
    if (command.name === 'run') return quoted('*:::program: _normal');
    const named = choices(command, commands);
    return quoted(named.length > 0 ? `1:name:(${named.join(' ')})` : '*:file:_files');
  };
  const cases = commands.map((command) => {
    const parts = [...command.flags.flatMap(specification), rest(command)];
    return `    ${command.name})\n      _arguments ${parts.join(' \\\n        ')} ;;`;
  });
  const names = commands.map(({ name, summary }) => `    ${quoted(`${plain(name)}:${plain(summary)}`)}`);
  return `#compdef ${program}
# Completion of ${program} for zsh: put this file as _${program} into a directory of $fpath.
${ident}_pids() { compadd $(${PIDS}) }
${ident}() {
  local -a commands
  commands=(
${names.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
}
if [[ $funcstack[1] == _${program} ]]; then ${ident} "$@"; else compdef ${ident} ${program}; fi
`;
}

function fishScript(program: string, commands: readonly CommandFacts[]): string {
  const lines = [`# Completion of ${program} for fish: put this file as ${program}.fish into ~/.config/fish/completions.`];
  const text = (value: string): string => `'${value.replaceAll(/['\\]/g, String.raw`\$&`)}'`;
  for (const command of commands) {
    lines.push(`complete -c ${program} -n __fish_use_subcommand -f -a ${command.name} -d ${text(command.summary)}`);
    const inside = `-n '__fish_seen_subcommand_from ${command.name}'`;
    for (const flag of command.flags) {
      const short = flag.char === null ? '' : ` -s ${flag.char}`;
      const value = flag.value === null ? '' : flag.value.options.length > 0 ? ` -x -a '${flag.value.options.join(' ')}'` : ' -r';
      lines.push(`complete -c ${program} ${inside} -l ${flag.name}${short}${value} -d ${text(flag.description)}`);
    }
    const named = choices(command, commands);
    if (named.length > 0) lines.push(`complete -c ${program} ${inside} -f -a '${named.join(' ')}'`);
    if (command.name === 'checkpoint') lines.push(`complete -c ${program} ${inside} -f -a ${text(`(${PIDS})`)}`);
  }
  return `${lines.join('\n')}\n`;
}
