/* Has CRIU make a time namespace for the processes that it is about to restore.
 *
 * Preloaded into CRIU for restores only. The clock of a time namespace can be set until the first
 * process enters it. So, when CRIU first speaks, which is to say that it has read all images and waits
 * to be told to go on, it gets one for its children. The supervisor sets it through
 * /proc/PID/timens_offsets before it lets CRIU go on: what was got ready an hour ago comes up with the
 * clock as it was. Where the namespace cannot be made, setting it fails. Not earlier, since CRIU has
 * forked by then to try the processor out. Built without any header:
 *
 *     cc -O2 -shared -fPIC -nostdlib -ffreestanding -fno-stack-protector -o newtime.so newtime.c
 */

#define CLONE_NEWTIME 0x80
#define SOL_SOCKET 1
#define SO_TYPE 3
#define SOCK_SEQPACKET 5

typedef unsigned long size_t;
typedef long ssize_t;

ssize_t writev(int fd, const void *parts, int count);
int getsockopt(int fd, int level, int name, void *value, unsigned int *size);
int unshare(int flags);
int *__errno_location(void);

static int spoke;

/* Whether it leads to the supervisor; leaves errno alone. */
static int is_rpc(int fd)
{
	int type = 0, error = *__errno_location();
	unsigned int size = sizeof(type);
	int answer = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);

	*__errno_location() = error;
	return answer == 0 && type == SOCK_SEQPACKET;
}

ssize_t write(int fd, const void *data, size_t size)
{
	const struct { const void *data; size_t size; } part = { data, size };

	if (!spoke && is_rpc(fd)) {
		spoke = 1;
		unshare(CLONE_NEWTIME);
	}
	return writev(fd, &part, 1);
}
