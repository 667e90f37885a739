/* Lets CRIU without privileges dump a sandbox that runs under a seccomp filter.
 *
 * Preloaded into CRIU only, never into a guest:
 *
 *     cc -O2 -shared -fPIC -nostdlib -ffreestanding -fno-stack-protector -o noseccomp.so noseccomp.c
 *     LD_PRELOAD=/usr/lib/crkernel-shims/noseccomp.so criu dump ...
 *
 * CRIU learns from the line "Seccomp:\t2" of /proc/PID/status that a task has a filter. It then
 * wants to suspend the filter and to save it, which the kernel grants to CAP_SYS_ADMIN in the first
 * user namespace alone. Our filters need neither: the supervisor has put the whole sandbox under
 * one, CRIU included, so that whatever CRIU restores inherits it again. This shim stands before
 * libc's read() and turns that 2 into a 0.
 *
 * Two conditions keep that honest:
 *  - Only what was read from procfs is touched. A dumped file may well contain the same bytes.
 *  - Only a task with as many filters as CRIU itself has is shown as free of them. One that has
 *    added a filter of its own would come back without it, so there CRIU sees the truth and refuses.
 *
 * It needs no header and no library but the C library of the process it is loaded into, so that a
 * bare compiler builds it. Architectures: x86_64 and aarch64.
 */

typedef unsigned long size_t;
typedef long ssize_t;

extern int *__errno_location(void);

#define AT_FDCWD (-100)
#define PROC_SUPER_MAGIC 0x9fa0
#define STATUS_SIZE 8192

#if defined(__x86_64__)

enum { SYS_read = 0, SYS_close = 3, SYS_fstatfs = 138, SYS_openat = 257 };

static long call(long number, long a, long b, long c, long d)
{
	register long fourth __asm__("r10") = d;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}

#elif defined(__aarch64__)

enum { SYS_read = 63, SYS_close = 57, SYS_fstatfs = 44, SYS_openat = 56 };

static long call(long number, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}

#else
#error "crkernel runs on x86_64 and aarch64 only"
#endif

/* The place behind `words` where a text begins with them, or 0. */
static char *after(char *text, size_t size, const char *words)
{
	size_t length = 0;

	while (words[length] && length < size && text[length] == words[length])
		length++;
	return words[length] ? 0 : text + length;
}

/* The place behind `name` where it starts a line of `text`, or 0. A status never starts with it. */
static char *field(char *text, size_t size, const char *name)
{
	char *found = 0;

	for (size_t start = 0; start < size && !found; start++)
		found = after(text + start, size - start, name);
	return found;
}

/* How many filters a status names, -1 when it does not say (kernels before 5.10). */
static long filters(char *text, size_t size)
{
	char *digit = field(text, size, "\nSeccomp_filters:\t");
	long count = 0;

	if (!digit)
		return -1;
	for (; digit < text + size && *digit >= '0' && *digit <= '9'; digit++)
		count = count * 10 + (*digit - '0');
	return count;
}

/* The number of filters that this process is under, read anew: it costs some microseconds and
 * leaves no state behind. -2, which equals no other count, if it cannot be read. */
static long own_filters(void)
{
	char text[STATUS_SIZE];
	size_t size = 0;
	long got;
	long fd = call(SYS_openat, AT_FDCWD, (long)"/proc/self/status", 0, 0);

	if (fd < 0)
		return -2;
	do {
		got = call(SYS_read, fd, (long)(text + size), (long)(sizeof(text) - size), 0);
		size += got > 0 ? (size_t)got : 0;
	} while (got > 0 && size < sizeof(text));
	call(SYS_close, fd, 0, 0, 0);
	return got < 0 ? -2 : filters(text, size);
}

static int is_procfs(int fd)
{
	/* struct statfs: 120 bytes on both architectures, its first word is the type. */
	long answer[32];

	return call(SYS_fstatfs, fd, (long)answer, 0, 0) == 0 && answer[0] == PROC_SUPER_MAGIC;
}

ssize_t read(int fd, void *buffer, size_t size)
{
	long got = call(SYS_read, fd, (long)buffer, (long)size, 0);
	char *mode;

	if (got < 0) {
		*__errno_location() = (int)-got;
		return -1;
	}
	/* Only what looks like a status is searched: CRIU reads much else, of a frozen guest. */
	if (got > STATUS_SIZE || !after(buffer, (size_t)got, "Name:\t"))
		return got;
	mode = field(buffer, (size_t)got, "\nSeccomp:\t");
	if (mode && mode < (char *)buffer + got && *mode == '2' && is_procfs(fd) &&
	    filters(buffer, (size_t)got) == own_filters())
		*mode = '0';
	return got;
}
