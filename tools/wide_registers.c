/*
 * A preloaded ptrace() that lets User-Mode Linux run on CPUs whose extended register state is larger than
 * UML's buffer for it.
 *
 * UML (6.1) keeps 2,696 octets of a process's XSAVE area and hands as many to PTRACE_SETREGSET. Where the CPU
 * has more (AMX), the host kernel refuses a part of the area, and UML panics: "ptrace set fp regs failed,
 * errno = 14". What comes here short is laid over the beginning of the whole area as the host kernel knows it.
 *
 * Built and preloaded by kernel-run; nothing else is changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define XSTATE 0x202 /* NT_X86_XSTATE */

static unsigned char area[1 << 16] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (request == PTRACE_SETREGSET && (long)address == XSTATE) {
		const struct iovec *wanted = data;
		struct iovec whole = { area, sizeof area };
		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &whole) == 0
		    && whole.iov_len > wanted->iov_len) {
			memcpy(area, wanted->iov_base, wanted->iov_len);
			return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, address, &whole);
		}
	}
	/* The library's ptrace returns the word of a PEEK, the system call stores it. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word;
		if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
			return -1;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
