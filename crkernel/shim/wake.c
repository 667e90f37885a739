/* A Node-API module, a function: makes a read in which the main thread blocks fail with EINTR.
 *
 * An interrupt calls it from another thread. The handlers that libuv installs restart system calls,
 * so a signal of our own is needed, one that no JavaScript can have a handler for. Built without
 * any header:
 *
 *     cc -O2 -shared -fPIC -nostdlib -ffreestanding -fno-stack-protector -o wake.so wake.c
 */

#define SIGNAL 61

typedef struct opaque *handle;

int getpid(void);
int tgkill(int process, int thread, int signal);
void (*signal(int signal, void (*handler)(int)))(int);
int siginterrupt(int signal, int flag);
int napi_create_function(handle env, const char *name, unsigned long length,
                         handle (*callback)(handle, handle), void *data, handle *result);

static void ignore(int number) {
    (void)number;
}

static handle wake(handle env, handle info) {
    (void)env;
    (void)info;
    siginterrupt(SIGNAL, 1);
    signal(SIGNAL, ignore);
    tgkill(getpid(), getpid(), SIGNAL);
    return 0;
}

__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function;

    (void)exports;
    napi_create_function(env, "wake", 4, wake, 0, &function);
    return function;
}
