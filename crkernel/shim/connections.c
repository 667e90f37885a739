/* Lets TCP connections go on as if CRIU had not been there.
 *
 * Preloaded into CRIU for dumps only. To read what a connection has in its queues, CRIU puts it into
 * repair mode and names a queue, and both stay so until all else is dumped. Meanwhile the kernel
 * goes on serving it, and two things become of a transfer that is under way:
 *
 *  - An acknowledgement that comes while the send queue is named has the kernel take all that waits
 *    there for sent. It is lost, up to 4 MB of it, and comes back by timeouts.
 *  - To leave repair mode sends a window probe, and with it the kernel thinks to have acknowledged
 *    what came last. pasta takes it for a keep-alive and does not read on: it waits 2 s, and
 *    again 2 s after the next probe, and sends nothing. A guest that is checkpointed often waits
 *    for ever.
 *
 * So repair mode is left without a probe, and no queue stays named. That of a connection that leads
 * out of the sandbox is not even read: such a connection does not outlive a restore, see "The network"
 * in docs/design.md. CRIU is told that it is empty, and gets the position of the other queue.
 *
 * Built like noseccomp.c, without any header. Both architectures have the same numbers here.
 */

typedef unsigned int u32;
typedef unsigned long size_t;
typedef long ssize_t;

extern long syscall(long number, ...);
extern int getsockname(int fd, void *address, u32 *size);
extern int getpeername(int fd, void *address, u32 *size);

#if defined(__x86_64__)
enum { SYS_ioctl = 16, SYS_recvfrom = 45, SYS_setsockopt = 54 };
#elif defined(__aarch64__)
enum { SYS_ioctl = 29, SYS_recvfrom = 207, SYS_setsockopt = 208 };
#else
#error "crkernel runs on x86_64 and aarch64 only"
#endif

enum { AF_INET = 2, AF_INET6 = 10, SOL_TCP = 6, MSG_PEEK = 2 };
enum { TCP_REPAIR = 19, TCP_REPAIR_QUEUE = 20 };
enum { TCP_REPAIR_OFF = 0, TCP_REPAIR_OFF_NO_WP = -1 };
enum { TCP_NO_QUEUE = 0, TCP_RECV_QUEUE = 1, TCP_SEND_QUEUE = 2 };
enum { SIOCOUTQ = 0x5411, SIOCOUTQNSD = 0x894b };

/* What an end of a socket has for an IPv4 address, also as one of IPv6 ("::ffff:10.0.2.100"); 0 if
 * there is none. */
static const unsigned char *ipv4(int (*name)(int, void *, u32 *), int fd, unsigned char *address)
{
	u32 size = 28;
	unsigned family;

	if (name(fd, address, &size))
		return 0;
	family = address[0] | address[1] << 8;
	if (family == AF_INET)
		return address + 4;
	return family == AF_INET6 && address[18] == 255 && address[19] == 255 ? address + 20 : 0;
}

/* Within a sandbox one end is an address of the loopback, or both are that of the uplink. */
static int leads_out(int fd)
{
	unsigned char ours[28], theirs[28];
	const unsigned char *here = ipv4(getsockname, fd, ours);
	const unsigned char *there = ipv4(getpeername, fd, theirs);

	if (!here || !there || here[0] == 127 || there[0] == 127)
		return 0;
	return here[0] != there[0] || here[1] != there[1] || here[2] != there[2] || here[3] != there[3];
}

int setsockopt(int fd, int level, int name, const int *value, u32 size)
{
	static const int off = TCP_REPAIR_OFF_NO_WP, other = TCP_RECV_QUEUE;

	if (level == SOL_TCP && name == TCP_REPAIR && *value == TCP_REPAIR_OFF)
		value = &off;
	if (level == SOL_TCP && name == TCP_REPAIR_QUEUE && *value == TCP_SEND_QUEUE && leads_out(fd))
		value = &other;
	return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

int ioctl(int fd, unsigned long request, int *argument)
{
	long result = syscall(SYS_ioctl, fd, request, argument);

	if (result == 0 && (request == SIOCOUTQ || request == SIOCOUTQNSD) && leads_out(fd))
		*argument = 0;
	return (int)result;
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
	static const int none = TCP_NO_QUEUE;
	long result = syscall(SYS_recvfrom, fd, buffer, size, flags, 0L, 0L);

	if (result >= 0 && flags & MSG_PEEK)
		syscall(SYS_setsockopt, fd, SOL_TCP, TCP_REPAIR_QUEUE, &none, sizeof(none));
	return result;
}
