/* A shared object with thread-local storage, loaded by tls.c with dlopen. */
__thread long module_value = 4711;
static __thread char module_block[3000];

long *module_address(void) { return &module_value; }
char *module_memory(void) { return module_block; }
