/* A process that is not dumpable (as after prctl, or one that holds secrets): it can be captured all the same and stays so. */
#include "check.h"

static void set_up(void) { SYS(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }

static void verify(void) { CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0, "dumpable %d", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)); }

static void after_restore(void) { verify(); }
