/* Streaming load generator of the benchmark: a one-thread epoll client that
 * keeps `-n` streamed chat completions open and checks every event of them.
 *
 *   stream_load -p PORT -n STREAMS -t TOKENS [-r RAMP_MS] [-d SECONDS]
 *
 * Starts are spread over the ramp. A stream that ends is followed by a new one
 * on the same connection until `-d` seconds have passed (0: one stream each).
 * A stream is good if all its tokens come in order, then a finish chunk, the
 * usage if it was asked for (every other stream asks) and [DONE], and the HTTP
 * body ends properly. Prints one JSON object: times in microseconds, TTFT from
 * the start of the request (connecting included) to the first token.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define LINE_SIZE 8192
#define FRAME_SIZE 255
#define STALL_US 30000000
#define BUCKETS 1000001 /* of 10 us: the last one takes all above 10 s */

enum body { HEAD, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };
enum fault { CONNECT, STATUS, TOKENS, FINISH, USAGE, DONE, CUT, STALLED, ERROR_EVENT, FAULTS };
static const char *const fault_names[FAULTS] = {
    "connect", "status", "tokens", "finish", "usage", "done", "cut", "stalled", "error_event"};

struct times {
    uint64_t count;
    uint32_t buckets[BUCKETS];
};

struct slot {
    int fd, connecting, running, reused;
    enum body body;
    size_t chunk_left, line_len, frame_len;
    long stream_no;
    int next_token, finished, usage_tokens, done;
    uint64_t last_us; /* of the latest token; before the first, of the start */
    char line[LINE_SIZE + 1];   /* of the SSE text */
    char frame[FRAME_SIZE + 1]; /* of the HTTP framing around it, cut if longer */
};

static int ep, port, streams = 1, tokens = 64;
static uint64_t ramp_us, duration_us, begin_us, now;
static struct slot *slots;
static long started, good, faults[FAULTS], events_seen, reconnects, unasked_usage;
static int running, shown;
static struct times ttft, gaps;

static uint64_t clock_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void begin(struct slot *s);
static void redial(struct slot *s);

static void hang_up(struct slot *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

static void end(struct slot *s, int fault) {
    s->running = 0;
    running--;
    if (fault < 0) {
        good++;
        if (now < begin_us + duration_us) begin(s);
        return;
    }
    faults[fault]++;
    if (shown++ < 5)
        fprintf(stderr, "stream %ld: %s after %d of %d tokens: %.300s\n", s->stream_no,
                fault_names[fault], s->next_token, tokens, fault == STATUS ? s->frame : s->line);
    hang_up(s);
}

static void send_request(struct slot *s) {
    char body[400], request[800];
    int n = snprintf(body, sizeof body,
                     "{\"model\":\"bench\",\"messages\":[{\"role\":\"user\",\"content\":\"stream-%ld\"}],"
                     "\"max_tokens\":%d,\"stream\":true%s}", s->stream_no, tokens,
                     s->stream_no % 2 ? "" : ",\"stream_options\":{\"include_usage\":true}");
    n = snprintf(request, sizeof request,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", port, n, body);
    s->connecting = 0;
    if (send(s->fd, request, n, MSG_NOSIGNAL) == n) return;
    if (s->reused) redial(s); else end(s, CONNECT);
}

static void dial(struct slot *s) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    s->reused = 0;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) { perror("socket"); exit(1); }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->connecting = connect(s->fd, (struct sockaddr *)&address, sizeof address) != 0;
    struct epoll_event e = {.events = EPOLLIN | (s->connecting ? EPOLLOUT : 0), .data.ptr = s};
    epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
    if (!s->connecting) send_request(s);
}

/* The server has closed an idle connection, as it may: the stream gets a new one. */
static void redial(struct slot *s) {
    hang_up(s);
    reconnects++;
    dial(s);
}

static void begin(struct slot *s) {
    s->running = 1;
    running++;
    s->stream_no = started++;
    s->body = HEAD;
    s->line_len = s->frame_len = s->next_token = s->finished = s->done = 0;
    s->usage_tokens = -1;
    s->last_us = now;
    s->reused = s->fd >= 0;
    if (s->reused) send_request(s); else dial(s);
}

/* Just behind `key` and the blanks that follow it, or NULL. */
static const char *after(const char *json, const char *key) {
    const char *at = strstr(json, key);
    return at ? at + strlen(key) + strspn(at + strlen(key), " ") : NULL;
}

static void note(struct times *t, uint64_t us) {
    t->count++;
    t->buckets[us / 10 < BUCKETS ? us / 10 : BUCKETS - 1]++;
}

/* The time that this share of the times does not exceed, or -1 if there are none. */
static long at_share(const struct times *t, double share) {
    uint64_t seen = 0;
    for (long i = 0; t->count && i < BUCKETS; i++)
        if ((seen += t->buckets[i]) >= t->count * share) return (i + 1) * 10;
    return -1;
}

/* One SSE line, without its end. -1, or a fault. */
static int on_line(struct slot *s) {
    s->line[s->line_len] = 0;
    if (strncmp(s->line, "data:", 5)) return -1;
    const char *json = s->line + 5 + strspn(s->line + 5, " "), *at;
    events_seen++;
    if (!strcmp(json, "[DONE]")) { s->done = 1; return -1; }
    if (after(json, "{\"error\":") == json + 9) return ERROR_EVENT;
    if ((at = after(json, "\"content\":")) && at[0] == '"' && at[1] >= '0' && at[1] <= '9') {
        char *colon;
        if (strtol(at + 1, &colon, 10) != s->stream_no || *colon != ':') return TOKENS;
        if (strtol(colon + 1, NULL, 10) != s->next_token) return TOKENS;
        note(s->next_token ? &gaps : &ttft, now - s->last_us);
        s->next_token++;
        s->last_us = now;
    }
    if ((at = after(json, "\"finish_reason\":")) && *at == '"') s->finished = s->next_token == tokens;
    if ((at = after(json, "\"completion_tokens\":"))) s->usage_tokens = atoi(at);
    return -1;
}

/* Of a stream whose body has ended: -1 if it is good, or what it lacks. */
static int verdict(const struct slot *s) {
    int asked = s->stream_no % 2 == 0;
    if (!asked && s->usage_tokens >= 0) unasked_usage++;
    if (s->next_token != tokens) return TOKENS;
    if (!s->finished) return FINISH;
    if (asked && s->usage_tokens != tokens) return USAGE;
    return s->done ? -1 : DONE;
}

/* One line of the HTTP framing: 0, 1 at the end of the body, -1 for a bad status. */
static int on_frame(struct slot *s) {
    s->frame[s->frame_len] = 0;
    size_t len = s->frame_len;
    s->frame_len = 0;
    if (s->body == HEAD) {
        if (!strncmp(s->frame, "HTTP/1.1", 8) && strncmp(s->frame + 8, " 200", 4)) return -1;
        if (len == 0) s->body = CHUNK_SIZE;
    } else if (s->body == CHUNK_SIZE) {
        s->chunk_left = strtoul(s->frame, NULL, 16);
        s->body = s->chunk_left ? CHUNK_DATA : TRAILER;
    } else if (s->body == CHUNK_END) {
        s->body = CHUNK_SIZE;
    } else if (len == 0) {
        return 1;
    }
    return 0;
}

/* SSE text out of a chunk: -1, or a fault. */
static int on_text(struct slot *s, const char *data, size_t len) {
    while (len) {
        const char *newline = memchr(data, '\n', len);
        size_t n = newline ? (size_t)(newline - data) : len;
        if (s->line_len + n > LINE_SIZE) return TOKENS;
        memcpy(s->line + s->line_len, data, n);
        s->line_len += n;
        if (!newline) return -1;
        int fault = on_line(s);
        if (fault >= 0) return fault;
        s->line_len = 0;
        data += n + 1;
        len -= n + 1;
    }
    return -1;
}

static void on_bytes(struct slot *s, const char *data, size_t len) {
    while (len) {
        size_t n = 1;
        if (s->body == CHUNK_DATA) {
            n = len < s->chunk_left ? len : s->chunk_left;
            int fault = on_text(s, data, n);
            if (fault >= 0) { end(s, fault); return; }
            if ((s->chunk_left -= n) == 0) s->body = CHUNK_END;
        } else if (*data == '\n') {
            int over = on_frame(s);
            if (over) { end(s, over < 0 ? (int)STATUS : verdict(s)); return; }
        } else if (*data != '\r' && s->frame_len < FRAME_SIZE) {
            s->frame[s->frame_len++] = *data;
        }
        data += n;
        len -= n;
    }
}

static void on_event(struct slot *s) {
    static char buffer[65536];
    if (s->connecting) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
        epoll_ctl(ep, EPOLL_CTL_MOD, s->fd, &e);
        send_request(s);
        return;
    }
    ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
    if (n > 0 && s->running) { on_bytes(s, buffer, n); return; }
    if (n < 0 && errno == EAGAIN) return;
    if (!s->running) hang_up(s);
    else if (s->reused && s->body == HEAD && s->frame_len == 0) redial(s);
    else end(s, CUT);
}

static void report(void) {
    printf("{\"streams\":%ld,\"good\":%ld,\"faults\":{", started, good);
    for (int i = 0, first = 1; i < FAULTS; i++)
        if (faults[i]) printf("%s\"%s\":%ld", first ? "" : ",", fault_names[i], faults[i]), first = 0;
    printf("},\"events\":%ld,\"reconnects\":%ld,\"unasked_usage\":%ld,\"seconds\":%.3f,"
           "\"ttft_us\":{\"p50\":%ld,\"p90\":%ld,\"p99\":%ld,\"max\":%ld},"
           "\"gap_us\":{\"p50\":%ld,\"p99\":%ld,\"max\":%ld}}\n",
           events_seen, reconnects, unasked_usage, (double)(now - begin_us) / 1e6,
           at_share(&ttft, 0.5), at_share(&ttft, 0.9), at_share(&ttft, 0.99), at_share(&ttft, 1),
           at_share(&gaps, 0.5), at_share(&gaps, 0.99), at_share(&gaps, 1));
}

int main(int argc, char **argv) {
    int opt, next = 0;
    struct epoll_event events[512];
    while ((opt = getopt(argc, argv, "p:n:t:r:d:")) != -1) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 10) : 0;
        if (opt == 'p') port = value;
        else if (opt == 'n') streams = value;
        else if (opt == 't') tokens = value;
        else if (opt == 'r') ramp_us = value * 1000;
        else if (opt == 'd') duration_us = value * 1000000;
        else return 2;
    }
    slots = calloc(streams, sizeof *slots);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (!slots || ep < 0) { perror("start"); return 1; }
    for (int i = 0; i < streams; i++) slots[i].fd = -1;
    now = begin_us = clock_us();
    for (uint64_t checked = now; next < streams || running;) {
        while (next < streams && begin_us + ramp_us * next / streams <= now) begin(&slots[next++]);
        int n = epoll_wait(ep, events, 512, next < streams ? 1 : 100);
        for (int i = 0; i < n; i++) {
            now = clock_us();
            on_event(events[i].data.ptr);
        }
        now = clock_us();
        if (now - checked < 1000000) continue;
        checked = now;
        for (int i = 0; i < next; i++)
            if (slots[i].running && now - slots[i].last_us > STALL_US) end(&slots[i], STALLED);
    }
    report();
    return 0;
}
