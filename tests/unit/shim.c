/* A program whose memory moves into memory files, as by a checkpoint, a rebase and a restore, before a
 * chosen one of the system calls that the shim makes: they are trapped. (test_shim.py)
 *
 *     LD_PRELOAD=shim.so program FOLDER SCENARIO...
 *
 * Each scenario is played once for each of its steps, and a last time without a move. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define R(n) context->uc_mcontext.gregs[REG_##n]
#define ARGUMENTS R(RDI), R(RSI), R(RDX), R(R10), R(R8), R(R9)
#define RESULT R(RAX)
#else
#define R(n) context->uc_mcontext.regs[n]
#define ARGUMENTS R(0), R(1), R(2), R(3), R(4), R(5)
#define RESULT R(0)
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
enum { PAGE = 4096, PAGES = 16, ROOM = 2 * PAGES }; /* the area, and what it may grow to */
static const char *folder;
static char *area, *neighbours;
static int own[2 * ROOM]; /* pages that show a file of the program's */
static int steps, chosen, refuse, again, prot = PROT_READ | PROT_WRITE;

#define fail(...) (fprintf(stderr, __VA_ARGS__), fprintf(stderr, "\n"), _exit(1))

static int is_mapped(char *page) { unsigned char in; return mincore(page, PAGE, &in) == 0; }

/* Put all pages of a range, but for those of the program's own files, into a new memory file. Each becomes
 * a mapping of its own, or all one, with something else behind it. */
static void move(char *start, int pages, int together)
{
	static char junk[(2 * ROOM + 1) * PAGE]; static int count; char path[400];
	snprintf(path, sizeof path, "%s/%d-%d", folder, getpid(), count++);
	int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	pwrite(file, memset(junk, 0xee, sizeof junk), sizeof junk, 0);
	for (int i = 0; i < pages; i++) {
		char *page = start + i * PAGE;
		off_t at = together ? i * PAGE : 2 * (ROOM - i) * PAGE;
		if ((start == area && own[i]) || !is_mapped(page)) continue;
		pwrite(file, page, PAGE, at);
		if (syscall(SYS_mmap, page, PAGE, prot, MAP_PRIVATE | MAP_FIXED, file, at) != (long)page)
			fail("cannot move");
	}
	close(file);
	unlink(path); /* maps says "(deleted)" */
}

/* A checkpoint, a rebase and a restore. Descriptors of maps are opened anew, as CRIU does. */
static void restore(void)
{
	char path[400], text[400];
	move(area, ROOM, again);
	move(neighbours, ROOM, again);
	again = 1; /* the text of maps has become longer, and will become shorter */
	for (int fd = 3; fd < 20; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t got = readlink(path, text, sizeof text - 1);
		if (got < 5 || memcmp(text + got - 5, "/maps", 5)) continue;
		int anew = open("/proc/self/maps", O_RDONLY);
		lseek(anew, lseek(fd, 0, SEEK_CUR), SEEK_SET);
		dup2(anew, fd); close(anew);
	}
}

static void trapped(int signal, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	if (steps++ == chosen) restore();
	long result = refuse && info->si_syscall == SYS_mmap ? (errno = ENOMEM, -1) :
		      syscall(info->si_syscall, ARGUMENTS);
	RESULT = result == -1 ? -errno : result;
}

/* Trap what is called from between two addresses, in the same 4 GiB. */
static void trap(unsigned long start, unsigned long end)
{
	unsigned at = offsetof(struct seccomp_data, instruction_pointer);
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, start >> 32, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, start, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, end, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
	struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
	sigaction(SIGSYS, &action, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		fail("no filter");
}

static void trap_the_shim(void)
{
	char line[500]; unsigned long start, end;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof line, maps))
		if (strstr(line, "/shim.so") && strstr(line, "r-x")) {
			sscanf(line, "%lx-%lx", &start, &end);
			if (start >> 32 != end >> 32) fail("badly placed");
			fclose(maps);
			trap(start, end);
			return;
		}
	fail("the shim is not there");
}

/* What each page of a range has to be: one of these bytes throughout. */
static void check(char *start, int from, int to, int one, int other)
{
	for (int i = from; i < to; i++)
		for (int j = 0; j < PAGE; j++) {
			int wanted = own[i] ? 'o' : one, found = (unsigned char)start[i * PAGE + j];
			if (found != wanted && (own[i] || found != other))
				fail("page %d holds %x", i, found);
		}
}

static void scenario(const char *name)
{
	int is(const char *word) { return strstr(name, word) != 0; }
	int advice = is("locked") ? MADV_DONTNEED_LOCKED : is("free") ? MADV_FREE : MADV_DONTNEED;
	area = mmap(0, ROOM * PAGE + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(area + PAGES * PAGE, (ROOM - PAGES) * PAGE); /* it can grow in place */
	memset(area, 'a', PAGES * PAGE);
	/* what comes before it in maps, more than one read of it */
	neighbours = mmap(0, (ROOM + 2) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (neighbours > area) fail("badly placed");
	again = is("grow") || is("dontunmap");
	if (is("mapped")) restore();
	if (is("own")) {
		char path[400];
		snprintf(path, sizeof path, "%s.own-%d", folder, getpid());
		int file = open(path, O_RDWR | O_CREAT, 0600);
		char page[PAGE]; memset(page, 'o', PAGE);
		for (int i = 0; i < PAGES; i++) pwrite(file, page, PAGE, i * PAGE);
		for (int i = 3; i < PAGES; i += 7) {
			own[i] = 1;
			mmap(area + i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, i * PAGE);
			if (!is("free")) area[i * PAGE] = 'p'; /* comes back as it is in the file */
		}
		close(file); unlink(path);
	}
	if (is("hole")) munmap(area + 10 * PAGE, PAGE);
	if (!is("ended")) trap_the_shim();
	refuse = is("refused");
	if (is("readonly")) mprotect(area, PAGES * PAGE, prot = PROT_READ);
	if (is("grow")) {
		int to = is("move") ? ROOM + 1 : PAGES + 9;
		char *grown = mremap(area, PAGES * PAGE, to * PAGE, is("move") ? MREMAP_MAYMOVE : 0, 0);
		if (is("readonly")) {
			if (grown != MAP_FAILED || is_mapped(area + PAGES * PAGE)) fail("it has grown");
			grown = area, to = PAGES;
		}
		if (grown == MAP_FAILED) fail("mremap: %m");
		check(grown, 0, PAGES, 'a', 'a');
		check(grown, PAGES, to, 0, 0);
	} else if (is("dontunmap")) {
		char *moved = mremap(area, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
		if (moved == MAP_FAILED) fail("mremap: %m");
		check(moved, 0, PAGES, 'a', 'a');
		check(area, 0, PAGES, 0, 0);
	} else {
		int result = madvise(area, PAGES * PAGE, advice);
		if (is("hole")) {
			if (result == 0 || errno != ENOMEM) fail("a hole is not told");
			check(area, 0, 10, 0, 0); check(area, 11, PAGES, 0, 0);
		} else if (is("own") && is("free")) {
			if (result == 0 || errno != EINVAL) fail("files are not told");
		} else if (result) fail("madvise: %m");
		else check(area, 0, PAGES, 0, is("free") ? 'a' : 0);
	}
}

/* maps says nothing any more of a process whose main thread has ended */
static void until_maps_is_empty(void)
{
	for (char first;;) {
		int maps = open("/proc/self/maps", O_RDONLY);
		ssize_t got = read(maps, &first, 1);
		close(maps);
		if (got == 0) return;
		usleep(1000);
	}
}

static void *play(void *name)
{
	alarm(60);
	if (strstr(name, "ended")) until_maps_is_empty();
	scenario(name);
	_exit(steps <= chosen ? 2 : 0);
}

int main(int count, char **names)
{
	folder = names[1];
	for (int i = 2; i < count; i++) {
		int status = 0;
		for (chosen = 0; status == 0; chosen++) {
			pid_t pid = fork();
			if (pid == 0) {
				pthread_t other;
				if (!strstr(names[i], "ended")) play(names[i]);
				pthread_create(&other, 0, play, names[i]);
				pthread_exit(0);
			}
			waitpid(pid, &status, 0);
		}
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 2) {
			printf("%s: wrong at step %d (%x)\n", names[i], chosen - 1, status);
			return 1;
		}
		printf("%s: right at each of %d steps\n", names[i], chosen);
	}
	return 0;
}
