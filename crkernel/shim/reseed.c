/* A Node-API module, a function: makes OpenSSL draw fresh entropy from the machine.
 *
 * A restored guest would otherwise go on with the random numbers of the checkpoint, and all guests
 * that start from one golden root would share them. Built without any header:
 *
 *     cc -O2 -shared -fPIC -nostdlib -ffreestanding -fno-stack-protector -o reseed.node reseed.c
 *
 * The symbols are Node's own; its child generators notice that the primary one was reseeded.
 */

typedef struct opaque *handle;

int RAND_poll(void);
int napi_create_function(handle env, const char *name, unsigned long length,
                         handle (*callback)(handle, handle), void *data, handle *result);

static handle reseed(handle env, handle info) {
    (void)env;
    (void)info;
    RAND_poll();
    return 0;
}

__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function;

    (void)exports;
    napi_create_function(env, "reseed", 6, reseed, 0, &function);
    return function;
}
