export const tomcatHome: string;
export function hasTomcat(): boolean;
export function tomcatCommand(java: string, base: string, port: number, options?: string[]): string[];
