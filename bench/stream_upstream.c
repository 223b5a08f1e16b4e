/* Streaming upstream of the benchmark: a one-thread epoll server that answers
 * every streamed chat completion with numbered tokens, as vLLM's SSE would.
 *
 *   stream_upstream -p PORT -i INTERVAL_MS
 *
 * The request decides the rest: `max_tokens` tokens, the first at once with the
 * role chunk, then one per interval; a finish chunk; a usage chunk if
 * `include_usage` is true; [DONE]. The prompt's "stream-N" comes back in every
 * token ("N:0 ", "N:1 " ...), so that the client can tell a lost or a foreign
 * token. GET of anything answers 200, so health checks pass.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_SIZE 8192

struct conn {
    int fd;
    size_t in_len;
    char *out; /* bytes not yet written: empty unless the reader is slow */
    size_t out_len, out_cap;
    int waiting_out;
    int streaming, usage;
    long stream_no;
    int tokens, sent;
    uint64_t due_us;
    struct conn *prev, *next; /* in the queue of streams, soonest token first */
    char in[IN_SIZE + 1];
};

static int ep;
static uint64_t interval_us = 20000;
static struct conn *head, *tail;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* The interval is the same for all, so a stream that is due next goes last. */
static void enqueue(struct conn *c, uint64_t due_us) {
    c->due_us = due_us;
    c->next = NULL;
    c->prev = tail;
    if (tail) tail->next = c; else head = c;
    tail = c;
}

static void dequeue(struct conn *c) {
    if (c->prev) c->prev->next = c->next; else head = c->next;
    if (c->next) c->next->prev = c->prev; else tail = c->prev;
}

static void drop(struct conn *c) {
    if (c->streaming) dequeue(c);
    close(c->fd);
    free(c->out);
    free(c);
}

static void watch(struct conn *c, int out) {
    if (c->waiting_out == out) return;
    c->waiting_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

/* Append to the connection's output. */
static void put(struct conn *c, const char *data, size_t len) {
    if (c->out_len + len > c->out_cap) {
        c->out_cap = (c->out_len + len) * 2;
        c->out = realloc(c->out, c->out_cap);
        if (!c->out) die("realloc");
    }
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
}

/* 0, or -1 when the connection is gone. */
static int flush(struct conn *c) {
    ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return -1;
    if (n > 0) {
        c->out_len -= n;
        memmove(c->out, c->out + n, c->out_len);
    }
    watch(c, c->out_len > 0);
    return 0;
}

/* One event, as one HTTP chunk of its own. */
static void put_event(struct conn *c, const char *fields) {
    char body[640], size[16];
    int n = snprintf(body, sizeof body,
                     "data: {\"id\":\"chatcmpl-%016lx\",\"object\":\"chat.completion.chunk\","
                     "\"created\":1763700000,\"model\":\"bench\",%s}\n\n", c->stream_no, fields);
    put(c, size, snprintf(size, sizeof size, "%x\r\n", n));
    put(c, body, n);
    put(c, "\r\n", 2);
}

static void put_token(struct conn *c) {
    char fields[200];
    snprintf(fields, sizeof fields,
             "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%ld:%d \"},"
             "\"logprobs\":null,\"finish_reason\":null}]", c->stream_no, c->sent++);
    put_event(c, fields);
}

static void put_end(struct conn *c) {
    static const char done[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    put_event(c, "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
                 "\"finish_reason\":\"length\",\"stop_reason\":null}]");
    if (c->usage) {
        char fields[200];
        snprintf(fields, sizeof fields,
                 "\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"total_tokens\":%d,"
                 "\"completion_tokens\":%d}", 12 + c->tokens, c->tokens);
        put_event(c, fields);
    }
    put(c, done, sizeof done - 1);
}

/* The number after `key` in the JSON, or `absent`. */
static long number(const char *json, const char *key, long absent) {
    const char *at = strstr(json, key);
    return at ? strtol(at + strlen(key) + strspn(at + strlen(key), "\": "), NULL, 10) : absent;
}

static int flag(const char *json, const char *key) {
    const char *at = strstr(json, key);
    return at && !strncmp(at + strlen(key) + strspn(at + strlen(key), "\": "), "true", 4);
}

/* 0, or -1 when the connection is gone. */
static int respond(struct conn *c, const char *body) {
    if (!flag(body, "\"stream\"")) {
        static const char ok[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                 "content-length: 2\r\n\r\n{}";
        put(c, ok, sizeof ok - 1);
        return flush(c);
    }
    static const char start[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\n"
                                "content-type: text/event-stream; charset=utf-8\r\n"
                                "transfer-encoding: chunked\r\n\r\n";
    c->stream_no = number(body, "stream-", -1);
    c->tokens = number(body, "\"max_tokens\"", 64);
    c->usage = flag(body, "\"include_usage\"");
    c->sent = 0;
    c->streaming = 1;
    enqueue(c, now_us() + interval_us);
    put(c, start, sizeof start - 1);
    put_event(c, "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                 "\"logprobs\":null,\"finish_reason\":null}]");
    put_token(c);
    return flush(c);
}

/* Answers the request that is complete in the buffer, if one is. */
static int parse(struct conn *c) {
    if (c->streaming) return 0;
    c->in[c->in_len] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return c->in_len == IN_SIZE ? -1 : 0;
    char *body = end + 4;
    *end = 0;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t need = length ? strtoul(length + 17, NULL, 10) : 0;
    *end = '\r';
    size_t total = (size_t)(body - c->in) + need;
    if (total > IN_SIZE) return -1;
    if (c->in_len < total) return 0;
    char saved = c->in[total];
    c->in[total] = 0;
    int gone = respond(c, body);
    c->in[total] = saved;
    c->in_len -= total;
    memmove(c->in, c->in + total, c->in_len);
    return gone;
}

static void tick(uint64_t now) {
    while (head && head->due_us <= now) {
        struct conn *c = head;
        if (c->sent < c->tokens) put_token(c);
        int last = c->sent >= c->tokens;
        if (last) put_end(c);
        dequeue(c);
        c->streaming = !last;
        if (!last) enqueue(c, c->due_us + interval_us);
        if (flush(c) < 0 || (last && parse(c) < 0)) drop(c);
    }
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

static void on_event(struct conn *c, uint32_t events) {
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(c->fd, c->in + c->in_len, IN_SIZE - c->in_len, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { drop(c); return; }
        if (n > 0) c->in_len += n;
        if (parse(c) < 0) { drop(c); return; }
    }
    if ((events & EPOLLOUT) && flush(c) < 0) drop(c);
}

int main(int argc, char **argv) {
    int port = 0, opt, on = 1;
    while ((opt = getopt(argc, argv, "p:i:")) != -1) {
        if (opt == 'p') port = atoi(optarg);
        else if (opt == 'i') interval_us = strtoull(optarg, NULL, 10) * 1000;
        else return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address)) die("bind");
    if (listen(listener, 4096)) die("listen");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        uint64_t now = now_us();
        int wait_ms = !head ? -1 : head->due_us <= now ? 0 : (int)((head->due_us - now + 999) / 1000);
        int n = epoll_wait(ep, events, 512, wait_ms);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) on_event(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        tick(now_us());
    }
}
