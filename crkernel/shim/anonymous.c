/* Gives memory that is mapped from a memory file the meaning of anonymous memory, and has V8's
 * memory lie together.
 *
 * Preloaded into every process of a guest (/etc/ld.so.preload of the image):
 *
 *     cc -O2 -shared -fPIC -nostdlib -ffreestanding -fno-stack-protector -o anonymous.so anonymous.c
 *
 * A restored guest has its big anonymous mappings as private mappings of a file (guest/memory.py).
 * Two things differ then, and this shim stands before libc's functions to make them equal:
 *  - madvise(MADV_DONTNEED) would bring back what the file holds, where anonymous memory reads as
 *    zeros, and MADV_FREE is refused. Allocators like jemalloc and mimalloc rely on the zeros, and
 *    so does V8 where an ArrayBuffer shrinks and grows again. Here a fresh anonymous mapping takes
 *    the place of that part.
 *  - mremap() that grows a mapping would show what follows in the file, and what it leaves behind
 *    with MREMAP_DONTUNMAP the file itself. Here both are fresh.
 *  - realloc() of libc grows by an mremap() of its own, and what is written then takes memory in the
 *    file besides the private copy. Here such a block is copied into fresh memory.
 *
 * libc's other calls do not come by here; it clears what it hands out as zeroed. A program whose
 * machine code makes the system call itself is not served.
 *
 * A checkpoint may be taken between any two system calls here, and what was anonymous is then of a
 * memory file when the call after it is made; the reverse never happens. So a range is always given
 * back, or grown, first, and only then looked through for files: what was anonymous at that moment
 * is zeros, and stays so in a memory file; what was of a file still is, and is found.
 *
 * Which parts are of memory files is in /proc/self/maps. Of a process that has no descriptor left to
 * open it, or whose main thread has ended, for then it is empty, a child does the work, which shares
 * its memory and not its descriptors. If that cannot be either, the caller is told: memory that is
 * said to be given back or grown is never another than it should be.
 *
 * The other matter: V8 asks for each page of its heap at a random address, and each is a mapping of
 * its own then, of which CRIU reads, writes and restores every one by itself. Here the kernel finds
 * the place, next to the one before, and a heap is a handful of mappings however large it is. What
 * was too small for huge pages by itself still gets none: a byte that is written would cost each
 * checkpoint 2 MiB. What V8 wants to be near its code is larger than its pages, and goes where V8
 * says.
 *
 * It needs no header and no library but the C library of the process it is loaded into.
 * Architectures: x86_64 and aarch64.
 */

typedef unsigned long size_t;
typedef long ssize_t;

extern int *__errno_location(void);
extern unsigned long getauxval(unsigned long type);
extern void *dlsym(void *handle, const char *name);
extern void *memcpy(void *to, const void *from, size_t length);
extern void *__libc_malloc(size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);
extern size_t malloc_usable_size(void *block);

#define AT_FDCWD (-100)
#define AT_PHDR 3
#define AT_PHNUM 5
#define CLONE_VM 0x100
#define CLONE_VFORK 0x4000
#define EACCES 13
#define EAGAIN 11
#define EINVAL 22
#define ENOMEM 12
#define MADV_DONTNEED 4
#define MADV_FREE 8
#define MADV_REMOVE 9
#define MADV_NOHUGEPAGE 15
#define MADV_DONTNEED_LOCKED 24
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MAP_FIXED_NOREPLACE 0x100000
#define IS_MMAPPED 2 /* in the word before a block: malloc.c of glibc */
#define HUGE_PAGE (2UL << 20)
#define NEAR_CODE (64UL << 20) /* V8 reserves 512 MiB for code */
#define MAP_FRESH 0x32 /* MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED */
#define MREMAP_DONTUNMAP 4
#define O_CLOEXEC 02000000
#define PAGE 4096
#define PT_LOAD 1
#define PT_PHDR 6
#define RTLD_NEXT ((void *)-1L)
#define SIG_SETMASK 2
#define SIGNALS 8 /* bytes of a set of them */
#define WCLONE 0x80000000

#if defined(__x86_64__)

enum {
	SYS_read = 0,
	SYS_close = 3,
	SYS_lseek = 8,
	SYS_mmap = 9,
	SYS_munmap = 11,
	SYS_rt_sigprocmask = 14,
	SYS_mremap = 25,
	SYS_madvise = 28,
	SYS_clone = 56,
	SYS_exit = 60,
	SYS_wait4 = 61,
	SYS_openat = 257,
};

static inline __attribute__((always_inline)) long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	register long sixth __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
}

#elif defined(__aarch64__)

enum {
	SYS_openat = 56,
	SYS_close = 57,
	SYS_lseek = 62,
	SYS_read = 63,
	SYS_exit = 93,
	SYS_rt_sigprocmask = 135,
	SYS_munmap = 215,
	SYS_mremap = 216,
	SYS_clone = 220,
	SYS_mmap = 222,
	SYS_madvise = 233,
	SYS_wait4 = 260,
};

static inline __attribute__((always_inline)) long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

#else
#error "crkernel runs on x86_64 and aarch64 only"
#endif

struct program_header { /* Elf64_Phdr */
	unsigned int type, flags;
	size_t offset, address, physical, file_size, memory_size, alignment;
};

static size_t program_start, program_end; /* of the main program, in memory */

__attribute__((constructor)) static void find_program(void)
{
	const struct program_header *headers = (void *)getauxval(AT_PHDR);
	size_t count = getauxval(AT_PHNUM), base = 0;

	for (size_t i = 0; headers && i < count; i++)
		if (headers[i].type == PT_PHDR)
			base = (size_t)headers - headers[i].address;
	for (size_t i = 0; headers && i < count; i++) {
		size_t start = base + headers[i].address, end = start + headers[i].memory_size;

		if (headers[i].type != PT_LOAD)
			continue;
		if (!program_end || start < program_start)
			program_start = start;
		if (end > program_end)
			program_end = end;
	}
}

static int from_program(const void *caller)
{
	return (size_t)caller >= program_start && (size_t)caller < program_end;
}

static int is_error(long result)
{
	return result < 0 && result >= -4095;
}

static long failed(long result)
{
	if (!is_error(result))
		return result;
	*__errno_location() = (int)-result;
	return -1;
}

/* One line of /proc/self/maps: "start-end rwxp offset device inode   path". */
struct mapping {
	size_t start, end;
	int protection, is_private, is_file, is_memory_file;
};

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *number(const char *text, size_t *value)
{
	for (*value = 0; digit(*text) >= 0; text++)
		*value = *value << 4 | (size_t)digit(*text);
	return text;
}

static int starts(const char *text, const char *with)
{
	while (*with && *text == *with)
		text++, with++;
	return !*with;
}

static struct mapping parse(const char *line)
{
	struct mapping found = {0};

	line = number(line, &found.start);
	line = number(line + 1, &found.end);
	found.protection = (line[1] == 'r') | (line[2] == 'w') << 1 | (line[3] == 'x') << 2;
	found.is_private = line[4] == 'p';
	while (*line && *line != '/')
		line++;
	found.is_file = *line == '/';
	found.is_memory_file = starts(line, "/memory/") || starts(line, "/golden/");
	return found;
}

/* What is asked of memory that may be of memory files, and the answer. */
struct request {
	long (*serve)(struct request *, long maps);
	size_t start, end;
	int advice;
	size_t address, old_size, size, to; /* to be moved or grown */
	int flags;
	long result;
};

/* Whether a range holds something that is no anonymous memory; the contents of the rest are given
 * up. The kernel's answer to MADV_FREE tells, and costs less than a look into maps. */
static int has_files(size_t start, size_t end)
{
	return call(SYS_madvise, (long)start, (long)(end - start), MADV_FREE, 0, 0, 0) == -EINVAL;
}

/* Have a part of a memory file read as zeros: there is fresh memory in its place. Where the kernel
 * has no mapping left to give, zeros are written. It gets huge pages no more than the file did. */
static long renew(struct mapping part, int advice)
{
	long length = (long)(part.end - part.start);
	long result = call(SYS_mmap, (long)part.start, length, part.protection, MAP_FRESH, -1, 0);

	if (!is_error(result)) {
		call(SYS_madvise, (long)part.start, length, MADV_NOHUGEPAGE, 0, 0, 0);
		return 0;
	}
	if (advice == MADV_FREE) /* may as well stay */
		return 0;
	if (!(part.protection & 2))
		return result;
	for (volatile size_t *word = (size_t *)part.start; word < (size_t *)part.end; word++)
		*word = 0;
	return 0;
}

/* Renew what a range has of memory files. `seen` becomes the address up to which there was no gap, or
 * 0 if the text of maps has become another one midway, as it does by a restore. */
static long look_through(struct request *request, long maps, size_t *seen)
{
	char line[328]; /* of longer ones the rest of the path */
	char text[4096];
	size_t length = 0, last = 0;
	long got = 0, result = 0;
	int gap = 0;

	*seen = request->start;
	call(SYS_lseek, maps, 0, 0, 0, 0, 0);
	while (last < request->end &&
	       (got = call(SYS_read, maps, (long)text, sizeof(text), 0, 0, 0)) > 0) {
		for (long i = 0; i < got && last < request->end; i++) {
			if (text[i] != '\n') {
				if (length < 319)
					line[length++] = text[i];
				continue;
			}
			line[length] = 0;
			length = 0;
			struct mapping part = parse(line);
			if (part.end <= part.start || part.start < last) {
				*seen = 0;
				return result;
			}
			last = part.end;
			if (part.start < request->start)
				part.start = request->start;
			if (part.end > request->end)
				part.end = request->end;
			if (part.start >= part.end)
				continue;
			gap |= part.start != *seen;
			if (!gap)
				*seen = part.end;
			if (part.is_private && part.is_memory_file)
				result = renew(part, request->advice) ?: result;
			else if (request->advice == MADV_FREE && part.is_file)
				result = -EINVAL;
			else if (request->advice == MADV_FREE)
				has_files(part.start, part.end); /* they are given up */
		}
	}
	return got < 0 ? got : result;
}

/* The same until all of it was seen at one go, or the same gap twice: nothing is mapped there. */
static long renew_files(struct request *request, long maps)
{
	size_t before = 0, seen;
	long result;

	while ((result = look_through(request, maps, &seen)) == 0 && seen < request->end) {
		if (seen && seen == before)
			return -ENOMEM;
		before = seen;
	}
	return result;
}

static size_t page_end(size_t size)
{
	return (size + PAGE - 1) & -(size_t)PAGE;
}

/* mremap() after which there is memory that is new. If that cannot be made what it has to be it goes
 * again: nothing has changed, or, if the rest has moved, nobody sees what is wrong. */
static long remap(struct request *request, long maps)
{
	size_t old = page_end(request->old_size);
	long moved = call(SYS_mremap, (long)request->address, (long)request->old_size,
			  (long)request->size, request->flags, (long)request->to, 0);
	long result;

	if (is_error(moved))
		return moved;
	request->start = request->flags & MREMAP_DONTUNMAP ? request->address : (size_t)moved + old;
	request->end = request->flags & MREMAP_DONTUNMAP ? request->address + old :
							   (size_t)moved + page_end(request->size);
	request->advice = MADV_DONTNEED;
	if (!has_files(request->start, request->end) || !(result = renew_files(request, maps)))
		return moved;
	call(SYS_munmap, (long)request->start, (long)(request->end - request->start), 0, 0, 0, 0);
	return result;
}

/* Whether it was served: maps may not be to be opened, or be empty. */
static __attribute__((noinline)) int serve(struct request *request)
{
	long maps = call(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_CLOEXEC, 0, 0, 0);
	char first;
	int served;

	if (maps < 0)
		return 0;
	served = call(SYS_read, maps, (long)&first, 1, 0, 0, 0) == 1;
	if (served)
		request->result = request->serve(request, maps);
	call(SYS_close, maps, 0, 0, 0, 0, 0);
	return served;
}

/* The same in a child that shares this memory, but has descriptors of its own, of which one can go.
 * This thread waits meanwhile, so it can use the same stack; it hears no signal, and nobody hears
 * of its end. */
static __attribute__((noinline)) int serve_in_child(struct request *request)
{
	unsigned long all = ~0UL, before;
	volatile int served = 0;
	long child;

	call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, SIGNALS, 0, 0);
	child = call(SYS_clone, CLONE_VM | CLONE_VFORK, 0, 0, 0, 0, 0);
	if (child == 0) {
		call(SYS_close, 0, 0, 0, 0, 0, 0);
		served = serve(request);
		for (;;)
			call(SYS_exit, 0, 0, 0, 0, 0, 0);
	}
	if (child > 0)
		call(SYS_wait4, child, 0, WCLONE, 0, 0, 0);
	call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, SIGNALS, 0, 0);
	return served;
}

static long answer(struct request *request, long otherwise)
{
	return failed(serve(request) || serve_in_child(request) ? request->result : otherwise);
}

int madvise(void *address, size_t length, int advice)
{
	size_t start = (size_t)address, end = page_end(start + length);
	struct request request = {.serve = renew_files, .start = start, .end = end, .advice = advice};
	long result = call(SYS_madvise, (long)address, (long)length, advice, 0, 0, 0);

	if ((advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED) &&
	    (result == 0 || result == -ENOMEM) && has_files(start, end))
		return (int)answer(&request, -EAGAIN);
	if (advice == MADV_FREE && result == -EINVAL && start % PAGE == 0 && end > start)
		return (int)answer(&request, 0); /* what may go may stay as well */
	return (int)failed(result);
}

void *mremap(void *address, size_t old_size, size_t size, int flags, void *to)
{
	struct request request = {.serve = remap, .address = (size_t)address, .old_size = old_size,
				  .size = size, .to = (size_t)to, .flags = flags};

	if (old_size && (page_end(size) > page_end(old_size) || flags & MREMAP_DONTUNMAP))
		return (void *)answer(&request, -ENOMEM);
	return (void *)failed(call(SYS_mremap, (long)address, (long)old_size, (long)size, flags,
				   (long)to, 0));
}

/* Whether libc has this block in a mapping of its own, which is of a file. MADV_REMOVE does nothing
 * to private memory, and its answers differ. */
static int is_in_file(const size_t *block)
{
	size_t page = (size_t)block & -(size_t)PAGE;

	return block[-1] & IS_MMAPPED &&
	       call(SYS_madvise, (long)page, PAGE, MADV_REMOVE, 0, 0, 0) == -EACCES;
}

void *realloc(void *block, size_t size)
{
	static void *(*next)(void *, size_t); /* that of another allocator, if the program has one */
	void *fresh;
	size_t old;

	if (!next)
		next = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	if (block && size > PAGE && next == __libc_realloc && is_in_file(block) &&
	    (old = malloc_usable_size(block)) < size && (fresh = __libc_malloc(size))) {
		memcpy(fresh, block, old);
		__libc_free(block);
		return fresh;
	}
	return next(block, size);
}

static void *map(const void *caller, void *address, size_t length, int protection, int flags, int fd,
		 long offset)
{
	int anywhere = address && (flags & MAP_ANONYMOUS) &&
		       !(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && length < NEAR_CODE &&
		       from_program(caller);
	long start = call(SYS_mmap, anywhere ? 0 : (long)address, (long)length, protection, flags, fd,
			  offset);

	if (anywhere && length < HUGE_PAGE && !is_error(start))
		call(SYS_madvise, start, (long)length, MADV_NOHUGEPAGE, 0, 0, 0);
	return (void *)failed(start);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
{
	return map(__builtin_return_address(0), address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, long offset)
{
	return map(__builtin_return_address(0), address, length, protection, flags, fd, offset);
}
