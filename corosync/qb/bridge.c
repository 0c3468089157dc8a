#define _GNU_SOURCE
#include "bridge.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "_cgo_export.h"

/*
 * The loop whose thread this is. libqb's poll callbacks have no context argument,
 * and they run on the thread that called into libqb.
 */
static __thread struct bridge_loop *this_loop;

/*
 * A client can truncate the files of its rings, and whoever touches that memory then gets SIGBUS.
 * Where this thread is within libqb, guard says where to go on in that case. It is NULL
 * while Go runs, whose frames must not be jumped over, and then the signal is Go's as before.
 */
static __thread sigjmp_buf *guard;
static struct sigaction go_action;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	if (guard != NULL)
		siglongjmp(*guard, 1);
	if (go_action.sa_flags & SA_SIGINFO)
		go_action.sa_sigaction(sig, info, context);
	else if (go_action.sa_handler != SIG_DFL && go_action.sa_handler != SIG_IGN)
		go_action.sa_handler(sig);
	else
		abort();
}

static void install(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_sigbus;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&action.sa_mask); /* as Go has it */
	sigaction(SIGBUS, NULL, &go_action);
	sigaction(SIGBUS, &action, NULL);
}

/* The thread's usual signal mask. */
static __thread sigset_t usual_mask;

/* A handler that jumps leaves all that its mask says blocked. */
static void after_fault(void)
{
	guard = NULL;
	pthread_sigmask(SIG_SETMASK, &usual_mask, NULL);
}

/*
 * bridge_trapped tells whether libqb has met such memory when it closed a connection. It has a
 * trap of its own there, which gives up the rest and leaves the signal blocked: the next
 * one would be deadly.
 */
int bridge_trapped(void)
{
	sigset_t before;

	pthread_sigmask(SIG_SETMASK, &usual_mask, &before);
	return sigismember(&before, SIGBUS);
}

struct bridge_loop *bridge_new(int epfd)
{
	struct bridge_loop *l = calloc(1, sizeof(*l));

	if (l != NULL)
		l->epfd = epfd;
	return l;
}

void bridge_free(struct bridge_loop *l)
{
	free(l->hot);
	free(l);
}

void bridge_bind(struct bridge_loop *l, uintptr_t handle)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	l->handle = handle;
	this_loop = l;
	pthread_sigmask(SIG_SETMASK, NULL, &usual_mask);
	pthread_once(&once, install);
}

/* A call into Go, outside of the guard. */
#define GO(result, call) \
	do { \
		sigjmp_buf *saved = guard; \
		guard = NULL; \
		result call; \
		guard = saved; \
	} while (0)

static int32_t dispatch_add(enum qb_loop_priority p, int32_t fd, int32_t events,
                            void *data, qb_ipcs_dispatch_fn_t fn)
{
	int32_t rc;

	(void)p;
	this_loop->attention = 1;
	GO(rc =, qbDispatchAdd(this_loop->handle, fd, events, data, fn));
	return rc;
}

static int32_t dispatch_mod(enum qb_loop_priority p, int32_t fd, int32_t events,
                            void *data, qb_ipcs_dispatch_fn_t fn)
{
	int32_t rc;

	(void)p;
	(void)data;
	(void)fn;
	GO(rc =, qbDispatchMod(this_loop->handle, fd, events));
	return rc;
}

static int32_t dispatch_del(int32_t fd)
{
	int32_t rc;

	GO(rc =, qbDispatchDel(this_loop->handle, fd));
	return rc;
}

static int32_t job_add(enum qb_loop_priority p, void *data, qb_loop_job_dispatch_fn fn)
{
	int32_t rc;

	(void)p;
	this_loop->attention = 1;
	GO(rc =, qbJobAdd(this_loop->handle, data, fn));
	return rc;
}

static int32_t accepted(qb_ipcs_connection_t *c, uid_t uid, gid_t gid)
{
	int32_t rc;

	GO(rc =, qbAccept(this_loop->handle, c, uid, gid));
	return rc;
}

/*
 * arrived gives the length of the ring's chunk that data is the beginning of, or -1
 * if it can't be told. A chunk is preceded by two words, its length and a magic
 * number; this layout is shared by processes and so doesn't change. Nothing need be mapped
 * before a ring: if data lies at the beginning of a page, so perhaps of the ring, the two
 * words are looked for a ring's length further on, as a ring is mapped twice in a row, and
 * carefully, as that length is libqb's own affair.
 */
static int64_t arrived(const void *data)
{
	const volatile uint32_t *before = (const uint32_t *)data - 2;
	uint32_t word[2];

	if (((uintptr_t)data & 4095) >= sizeof(word)) {
		word[0] = before[0];
		word[1] = before[1];
	} else {
		struct iovec to = { word, sizeof(word) };
		struct iovec from = { (char *)data + this_loop->ring_size - sizeof(word), sizeof(word) };

		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != sizeof(word))
			return -1;
	}
	return word[1] == 0xA1A1A1A1 ? word[0] : -1;
}

static int32_t message(qb_ipcs_connection_t *c, void *data, size_t size)
{
	int32_t id = *(volatile int32_t *)data;
	int64_t length = arrived(data);
	int32_t claimed = (int32_t)size;
	char small[BRIDGE_SMALL];
	struct bridge_answer answer;
	sigjmp_buf *saved = guard;
	int32_t send;
	ssize_t rc;

	/*
	 * Most requests are short, and their copy is had cheaper here than by another
	 * call from Go. A ring is mapped twice in a row, so this much can be read.
	 */
	if (claimed > BRIDGE_HEADER && claimed <= BRIDGE_HEADER + BRIDGE_SMALL)
		memcpy(small, (char *)data + BRIDGE_HEADER, (size_t)claimed - BRIDGE_HEADER);
	GO(send =, qbMessage(this_loop->handle, c, id, data, small, claimed, length, &answer));
	if (send) {
		rc = bridge_reply(c, id, answer.error, answer.data, answer.len);
		guard = saved;
		if (rc < 0)
			GO(, qbUnsent(this_loop->handle, rc));
	}
	/* "Back off": one request per notification byte, see doc.go. */
	return -ENOBUFS;
}

static int32_t closed(qb_ipcs_connection_t *c)
{
	(void)c;
	return 0;
}

/* Called for every connection that accepted() was called for, whatever became of it. */
static void destroyed(qb_ipcs_connection_t *c)
{
	this_loop->attention = 1;
	GO(, qbDestroyed(this_loop->handle, c));
}

qb_ipcs_service_t *bridge_create(const char *name, int32_t service_id, uint32_t buffer_size)
{
	struct qb_ipcs_service_handlers handlers = {
		.connection_accept = accepted,
		.msg_process = message,
		.connection_closed = closed,
		.connection_destroyed = destroyed,
	};
	struct qb_ipcs_poll_handlers poll = {
		.job_add = job_add,
		.dispatch_add = dispatch_add,
		.dispatch_mod = dispatch_mod,
		.dispatch_del = dispatch_del,
	};
	qb_ipcs_service_t *s = qb_ipcs_create(name, service_id, QB_IPC_SHM, &handlers);

	if (s == NULL)
		return NULL;
	qb_ipcs_enforce_buffer_size(s, buffer_size);
	/* 13: libqb's margin; then whole pages. */
	this_loop->ring_size = ((size_t)buffer_size + 13 + 4095) / 4096 * 4096;
	qb_ipcs_poll_handlers_set(s, &poll);
	return s;
}

int32_t bridge_dispatch(qb_ipcs_dispatch_fn_t fn, int32_t fd, int32_t revents, void *data)
{
	sigjmp_buf here;
	int32_t rc;

	if (sigsetjmp(here, 0)) {
		after_fault();
		return BRIDGE_FAULT;
	}
	guard = &here;
	rc = fn(fd, revents, data);
	guard = NULL;
	return rc;
}

/* bridge_heat makes a descriptor hot, if there is memory for it: it is served without, too. */
void bridge_heat(struct bridge_loop *l, int32_t fd, int32_t generation, qb_ipcs_dispatch_fn_t fn, void *data)
{
	if (fd >= l->hots) {
		int32_t n = (fd / 64 + 1) * 64;
		struct bridge_hot *hot = realloc(l->hot, (size_t)n * sizeof(*hot));

		if (hot == NULL)
			return;
		memset(hot + l->hots, 0, (size_t)(n - l->hots) * sizeof(*hot));
		l->hot = hot;
		l->hots = n;
	}
	l->hot[fd] = (struct bridge_hot){ fn, data, generation };
}

void bridge_cool(struct bridge_loop *l, int32_t fd)
{
	if (fd < l->hots)
		l->hot[fd].fn = NULL;
}

/*
 * bridge_wait waits for events. Those of hot descriptors it deals with, and waits again, until
 * there is something for Go: an event of another descriptor, attention, or a failure. With a
 * timeout it returns after one look. It returns how many events are left for Go, from
 * next on, or a negative errno.
 */
int bridge_wait(struct bridge_loop *l, int timeout_ms)
{
	l->attention = 0;
	l->failed.events = 0;
	do {
		int n = epoll_wait(l->epfd, l->events, BRIDGE_EVENTS, timeout_ms);

		l->next = 0;
		l->count = n < 0 ? 0 : n;
		if (n < 0)
			return errno == EINTR ? 0 : -errno;
		while (l->next < l->count) {
			const struct epoll_event *event = &l->events[l->next];
			int32_t fd = (int32_t)event->data.u64; /* as Go packs it */
			struct bridge_hot h = { 0 };

			if (fd < l->hots)
				h = l->hot[fd];
			if (h.fn == NULL || h.generation != (int32_t)(event->data.u64 >> 32) ||
			    event->events != EPOLLIN)
				return l->count - l->next;
			l->next++;
			l->failure = bridge_dispatch(h.fn, fd, EPOLLIN, h.data);
			if (l->failure < 0) {
				l->failed = *event;
				return l->count - l->next;
			}
			if (l->attention)
				return l->count - l->next;
		}
	} while (timeout_ms < 0);
	return 0;
}

/* bridge_copy copies out of a ring. It returns 0, or BRIDGE_FAULT. */
int bridge_copy(void *dst, const void *src, size_t n)
{
	sigjmp_buf here;

	if (sigsetjmp(here, 0)) {
		after_fault();
		return BRIDGE_FAULT;
	}
	guard = &here;
	memcpy(dst, src, n);
	guard = NULL;
	return 0;
}

void bridge_job(qb_loop_job_dispatch_fn fn, void *data)
{
	fn(data);
}

int32_t bridge_client_pid(qb_ipcs_connection_t *c)
{
	struct qb_ipcs_connection_stats stats;

	/* Deprecated for its missing event_q_length; its successor allocates. */
	if (qb_ipcs_connection_stats_get(c, &stats, 0) != 0)
		return 0;
	return stats.client_pid;
}

ssize_t bridge_reply(qb_ipcs_connection_t *c, int32_t id, int32_t error, const char *data, size_t len)
{
	struct qb_ipc_response_header header;
	struct iovec iov[2];
	sigjmp_buf here;
	ssize_t rc;

	memset(&header, 0, sizeof(header));
	header.id = id;
	header.size = (int32_t)(sizeof(header) + len);
	header.error = error;
	iov[0].iov_base = &header;
	iov[0].iov_len = sizeof(header);
	iov[1].iov_base = (void *)data;
	iov[1].iov_len = len;
	if (sigsetjmp(here, 0)) {
		after_fault();
		/* The reference that libqb takes for the time of the call. */
		qb_ipcs_connection_unref(c);
		return BRIDGE_FAULT;
	}
	guard = &here;
	rc = qb_ipcs_response_sendv(c, iov, len > 0 ? 2 : 1);
	guard = NULL;
	return rc;
}

qb_ipcc_connection_t *bridge_connect(const char *name, size_t max, int32_t timeout_ms, int *err)
{
	struct pollfd pfd = { .events = POLLIN };
	qb_ipcc_connection_t *c;
	int rc, answered;

	/*
	 * qb_ipcc_connect fails if a signal interrupts its wait for the answer, and
	 * waits for ever. Go's runtime sends itself signals all the time.
	 */
	errno = 0;
	c = qb_ipcc_connect_async(name, max, &pfd.fd);
	if (c == NULL) {
		/* EAGAIN: too many others are about to connect */
		*err = errno == EAGAIN ? EINPROGRESS : errno;
		return NULL;
	}
	do
		answered = poll(&pfd, 1, timeout_ms);
	while (answered == -1 && errno == EINTR);
	rc = qb_ipcc_connect_continue(c); /* frees c if it fails */
	*err = rc == 0 ? 0 : answered == 0 ? ETIMEDOUT : -rc;
	return rc == 0 ? c : NULL;
}

/*
 * bridge_call answers -EAGAIN if the request could not be sent yet, -ETIMEDOUT if no answer came,
 * in time or until *closing was set.
 */
ssize_t bridge_call(qb_ipcc_connection_t *c, int32_t id, const char *data, size_t len,
                    void *reply, size_t reply_size, int32_t timeout_ms, const int32_t *closing)
{
	struct qb_ipc_request_header header;
	struct iovec iov[2];
	int32_t left = timeout_ms, step;
	ssize_t rc;

	memset(&header, 0, sizeof(header));
	header.id = id;
	header.size = (int32_t)(sizeof(header) + len);
	iov[0].iov_base = &header;
	iov[0].iov_len = sizeof(header);
	iov[1].iov_base = (void *)data;
	iov[1].iov_len = len;
	rc = qb_ipcc_sendv(c, iov, len > 0 ? 2 : 1);
	if (rc < 0)
		return rc;
	/*
	 * What qb_ipcc_sendv_recv does, but it looks every 2 s only whether the server
	 * is still there.
	 */
	do {
		step = timeout_ms >= 0 && left < 100 ? left : 100;
		rc = qb_ipcc_recv(c, reply, reply_size, step);
		if (timeout_ms >= 0)
			left -= step;
	} while ((rc == -ETIMEDOUT || rc == -EAGAIN) && (timeout_ms < 0 || left > 0) &&
	         !__atomic_load_n(closing, __ATOMIC_RELAXED));
	return rc == -EAGAIN ? -ETIMEDOUT : rc;
}
