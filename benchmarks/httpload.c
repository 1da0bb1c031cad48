/* Load on one HTTP server, from one thread: how much it answers, how fast, and whether rightly.
 *
 *   httpload PORT PREFIX --filler FILE --files N --size BYTES [--count N] [--seconds S] [--connections C] [--rate R]
 *            [--puts PERCENT] [--edition N] [--fresh] [--miss] [--learn FILE | --etags FILE]
 *
 * Files 0 to N - 1 have the paths PREFIX00000000.bin on. A file's body follows from its number: 16 bytes that tell it,
 * and then a piece of FILE, cut elsewhere for each (bytes of FILE: 65536 + BYTES). So every answer can be checked to the
 * last byte, whoever wrote the file, and is. Files are asked for in scattered order, each once before any comes again.
 *
 *   --count       so many requests at most; --seconds: requests for so long, and then until the last one is answered
 *   --rate        so many requests a second, evenly spread, answered or not the ones before: what is due when all
 *                 connections wait for an answer is sent by the next one that has it. The latency counts from when the
 *                 request was due, so that a server's pause is told as all that waited for it saw it.
 *   --puts        share of PUTs; the others are GETs
 *   --edition     which of many contents the files have, or get: 0, unless it is told
 *   --fresh       numbers go on past N: no path comes twice
 *   --miss        the files must not be there: 404 is right
 *   --learn       write the ETag of each file to FILE, a line each: --count N, so that each is read once
 *   --etags       ask each file with its ETag there, as If-None-Match: 304 is right
 *
 * Without --rate a connection sends its next request when one is answered, so that a slow server is asked less.
 * Connections are kept alive; where the server says that it closes one, another takes its place. Prints one line of JSON:
 * requests answered, seconds, the bytes of files sent or received, latencies in microseconds (of buckets that are 1.6 %
 * wide, max is exact), CPU seconds of its own, and errors: "status" (another one than is right), "wrong" (another body
 * than the file's), "broken" (no answer that can be read: the connection ended, or all of them were silent for 30
 * seconds). The first error is shown on standard error.
 * Exit status: 0 whatever the errors; 1 if nothing could be asked; 2 for a wrong command line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "load.h"

enum {
    MARK = 16,          /* bytes of a body that tell its number */
    PLACES = 1 << 16,   /* where a body may begin in the filler */
    HEAD = 2048,        /* bytes of a request's head with the mark, at most */
    CAPACITY = 1 << 16, /* of a connection's buffer; an answer's head must fit in */
    ETAG = 128,         /* bytes of an ETag, at most */
    PATIENCE = 30,      /* seconds of silence before giving up */
    EVENTS = 256
};

static struct {
    unsigned port, connections, files, size, puts, edition;
    double count, seconds, rate; /* count and rate: 0 for any */
    bool fresh, miss;
    const char *prefix, *filler, *learn, *etags;
} options = {.connections = 1};

struct connection { /* has one request in flight, or stands in the ring of idle ones */
    int fd;         /* -1 when it is broken */
    bool blocked;   /* what is to be sent waits until the server takes it */
    bool put;
    uint32_t number;
    uint64_t start;
    char out[HEAD];
    size_t head, sent, all; /* bytes of ``out``; of it and the rest of the body those gone, and all */
    char *in;
    size_t received;
    int status;            /* of the answer whose body comes; 0: its head does */
    size_t length, come;   /* of that body: all, and what has come */
    bool right;            /* that is the file's so far */
    bool closing;          /* the server will hang up behind it */
};

static char *filler, (*etags)[ETAG];
static struct connection *connections, **idle; /* idle: a ring, whoever waits longest is asked first */
static unsigned first_idle, idle_count, flying;
static uint64_t asked, answered, bytes, bad_status, wrong, broken;
static uint64_t last, deadline, due, chance;
static int loop, timer;

static void error(uint64_t *counter, const struct connection *connection, const char *what, size_t length)
{
    if (!(bad_status + wrong + broken))
        fprintf(stderr, "httpload: %s %s%08u.bin: %.*s\n", connection->put ? "PUT" : "GET", options.prefix,
                connection->number, (int)length, what);
    ++*counter;
}

/* --- files --- */

static uint64_t content_of(uint32_t number) /* numbers have 8 digits */
{
    return options.edition * 100000000ull + number;
}

static char *put_mark(char *at, uint32_t number)
{
    uint64_t content = content_of(number);
    at[MARK - 1] = '\n';
    for (int place = MARK - 2; place >= 0; place--, content /= 10)
        at[place] = '0' + content % 10;
    return at + MARK;
}

static const char *filling(uint32_t number) /* a file's body, but for its mark */
{
    return filler + content_of(number) * SCATTER % PLACES;
}

static bool is_same(uint32_t number, size_t at, const char *data, size_t length)
{
    char mark[MARK];
    size_t marked = at < MARK ? MARK - at : 0;
    if (marked > length)
        marked = length;
    if (at + length > options.size || (marked && memcmp(put_mark(mark, number) - MARK + at, data, marked)))
        return false;
    return !memcmp(filling(number) + at + marked, data + marked, length - marked);
}

/* --- connections --- */

static void become_idle(struct connection *connection)
{
    connection->all = connection->sent = connection->status = 0;
    idle[(first_idle + idle_count++) % options.connections] = connection;
}

static void open_connection(struct connection *connection)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address))
        die("can't connect to port %u: %s", options.port, strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (!connection->in)
        connection->in = malloc(CAPACITY);
    if (!connection->in || epoll_ctl(loop, EPOLL_CTL_ADD, connection->fd, &event))
        die("can't take another connection");
    become_idle(connection);
}

static void give_up(struct connection *connection, const char *why)
{
    error(&broken, connection, why, strlen(why));
    if (connection->all)
        flying--;
    close(connection->fd);
    connection->fd = -1;
}

/* --- requests --- */

static void send_rest(struct connection *connection)
{
    while (connection->sent < connection->all) {
        size_t sent = connection->sent, head = connection->head, of_head = sent < head ? head - sent : 0;
        size_t of_body = connection->all - sent - of_head;
        const char *body = filling(connection->number) + options.size - of_body;
        struct iovec parts[2] = {{connection->out + sent, of_head}, {(void *)body, of_body}};
        struct msghdr message = {.msg_iov = of_head ? parts : parts + 1, .msg_iovlen = !!of_head + !!of_body};
        ssize_t length = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
        if (length < 0 && errno != EAGAIN) {
            give_up(connection, strerror(errno));
            return;
        }
        if (length < 0)
            break;
        connection->sent += length;
    }
    bool blocked = connection->sent < connection->all;
    if (blocked != connection->blocked) {
        connection->blocked = blocked;
        struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = connection};
        epoll_ctl(loop, EPOLL_CTL_MOD, connection->fd, &event);
    }
}

static void ask(struct connection *connection, uint64_t start)
{
    connection->start = start;
    connection->number = options.fresh ? asked : asked % options.files * SCATTER % options.files;
    connection->put = options.puts && (mixed(chance++) >> 32) * 100 >> 32 < options.puts;
    char *at = stpcpy(stpcpy(connection->out, connection->put ? "PUT " : "GET "), options.prefix);
    uint32_t rest = connection->number;
    for (int place = 7; place >= 0; place--, rest /= 10)
        at[place] = '0' + rest % 10;
    at = stpcpy(at + 8, ".bin HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    if (connection->put)
        at = stpcpy(put_number(stpcpy(at, "Content-Length: "), options.size), "\r\n");
    else if (options.etags)
        at = stpcpy(stpcpy(stpcpy(at, "If-None-Match: "), etags[connection->number]), "\r\n");
    at = stpcpy(at, "\r\n");
    if (connection->put)
        at = put_mark(at, connection->number);
    connection->head = at - connection->out;
    connection->all = connection->head + (connection->put ? options.size - MARK : 0);
    connection->sent = 0;
    asked++;
    flying++;
    send_rest(connection);
}

/* Closed loop: each idle connection asks. With --rate: as many as there are requests due; when all wait for an answer
 * the next one of those asks. */
static void ask_what_is_due(void)
{
    uint64_t time = now();
    bool more = true;
    while (idle_count && (more = (!options.count || asked < options.count) && (options.rate ? due : time) < deadline)) {
        if (options.rate && due > time)
            break;
        struct connection *connection = idle[first_idle];
        first_idle = (first_idle + 1) % options.connections;
        idle_count--;
        if (connection->fd < 0)
            continue;
        ask(connection, options.rate ? due : time);
        due += options.rate ? SECOND / options.rate : 0;
    }
    if (options.rate) {
        uint64_t next = more && idle_count ? due : 0; /* 0: never */
        struct itimerspec when = {.it_value = {.tv_sec = next / SECOND, .tv_nsec = next % SECOND}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
    }
}

/* --- answers --- */

static void finish(struct connection *connection, uint64_t time)
{
    int status = connection->status;
    bool is_file = !connection->put && !options.miss && !options.etags;
    bool is_right = connection->put    ? status == 200 || status == 201 || status == 204
                    : options.miss     ? status == 404
                    : options.etags    ? status == 304
                                       : status == 200;
    char said[64];
    if (!is_right)
        error(&bad_status, connection, said, sprintf(said, "answered %d", status));
    else if (is_file && (!connection->right || connection->length != options.size))
        error(&wrong, connection, said, sprintf(said, "%zu bytes that aren't the file's", connection->length));
    else if (is_file || connection->put)
        bytes += options.size;
    record(time - connection->start);
    last = time;
    answered++;
    flying--;
    if (connection->closing) {
        close(connection->fd);
        open_connection(connection);
    } else
        become_idle(connection);
}

/* What of an answer's head counts here. Returns false if it can't be told where the answer ends. */
static bool read_head(struct connection *connection, char *head, char *end)
{
    if (memcmp(head, "HTTP/1.1 ", 9))
        return false;
    int status = strtol(head + 9, NULL, 10);
    bool without_body = status == 304 || status == 204, told = without_body;
    connection->length = connection->come = 0;
    connection->right = true;
    connection->closing = false;
    for (char *line = memchr(head, '\n', end - head); line && ++line < end; line = memchr(line, '\n', end - line)) {
        if ((*line | 32) == 'c' && !strncasecmp(line, "Content-Length:", 15) && !without_body) {
            connection->length = strtoull(line + 15, NULL, 10);
            told = true;
        } else if ((*line | 32) == 'c' && !strncasecmp(line, "Connection: close", 17)) {
            connection->closing = true;
        } else if (options.learn && !strncasecmp(line, "ETag: ", 6)) {
            size_t length = strcspn(line + 6, "\r\n");
            memcpy(etags[connection->number], line + 6, length < ETAG ? length : 0);
        }
    }
    connection->status = status;
    return told && status >= 200;
}

static void take(struct connection *connection, uint64_t time)
{
    char *at = connection->in, *end = at + connection->received;
    if (!connection->status) {
        char *end_of_head = memmem(at, end - at, "\r\n\r\n", 4);
        if (!end_of_head && connection->received < CAPACITY)
            return;
        if (!end_of_head || !read_head(connection, at, end_of_head + 2)) {
            give_up(connection, "an answer without an end");
            return;
        }
        at = end_of_head + 4;
    }
    size_t length = connection->length - connection->come;
    if (length > (size_t)(end - at))
        length = end - at;
    if (connection->status == 200 && !connection->put && connection->right)
        connection->right = is_same(connection->number, connection->come, at, length);
    connection->come += length;
    connection->received = 0;
    if (at + length < end)
        give_up(connection, "more than was asked for");
    else if (connection->come == connection->length && connection->sent < connection->all)
        give_up(connection, "an answer before all was sent");
    else if (connection->come == connection->length)
        finish(connection, time);
}

static void receive(struct connection *connection)
{
    ssize_t length = read(connection->fd, connection->in + connection->received, CAPACITY - connection->received);
    if (length <= 0) {
        if (length == 0 || errno != EAGAIN)
            give_up(connection, length ? strerror(errno) : "the server hung up");
        return;
    }
    connection->received += length;
    if (!connection->all)
        give_up(connection, "an answer to nothing");
    else
        take(connection, now());
}

/* --- the run --- */

static void run(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL}; /* which no connection's has */
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (timer < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, timer, &event))
        die("can't make a timer: %s", strerror(errno));
    last = due = now();
    deadline = last + (options.seconds ? options.seconds : 1e9) * SECOND;
    ask_what_is_due();
    while (flying || (options.rate && idle_count && due < deadline && (!options.count || asked < options.count))) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(loop, events, EVENTS, PATIENCE * 1000);
        for (int n = 0; n < count; n++) {
            struct connection *connection = events[n].data.ptr;
            if (connection && events[n].events & ~EPOLLOUT)
                receive(connection);
            if (connection && connection->blocked && connection->fd >= 0)
                send_rest(connection);
        }
        for (unsigned n = 0; count == 0 && n < options.connections; n++)
            if (connections[n].fd >= 0 && connections[n].all)
                give_up(&connections[n], "no answer for 30 seconds");
        ask_what_is_due();
    }
}

static void read_filler(void)
{
    FILE *file = fopen(options.filler, "rb");
    filler = malloc(PLACES + options.size);
    if (!file || !filler || fread(filler, 1, PLACES + options.size, file) < PLACES + options.size)
        die("%s must have %u bytes", options.filler, PLACES + options.size);
    fclose(file);
}

static void read_etags(void)
{
    FILE *file = fopen(options.etags, "r");
    for (unsigned n = 0; n < options.files; n++) {
        if (!file || !fgets(etags[n], ETAG, file) || strlen(etags[n]) < 3)
            die("%s must have an ETag for each file, a line each", options.etags);
        etags[n][strcspn(etags[n], "\n")] = 0;
    }
    fclose(file);
}

static void write_etags(void)
{
    FILE *file = fopen(options.learn, "w");
    for (unsigned n = 0; file && n < options.files; n++)
        fprintf(file, "%s\n", etags[n]);
    if (!file || fclose(file))
        die("can't write %s", options.learn);
}

static void read_command(int argc, char **argv)
{
    static const struct option names[] = {
        {"filler", 1, 0, 'f'}, {"files", 1, 0, 'n'}, {"size", 1, 0, 'b'}, {"count", 1, 0, 'c'},
        {"seconds", 1, 0, 't'}, {"connections", 1, 0, 'k'}, {"rate", 1, 0, 'r'}, {"puts", 1, 0, 'p'},
        {"edition", 1, 0, 'E'}, {"fresh", 0, 0, 'F'},
        {"miss", 0, 0, 'm'}, {"learn", 1, 0, 'l'}, {"etags", 1, 0, 'e'}, {0}};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'f': options.filler = optarg; break;
        case 'n': options.files = figure(optarg); break;
        case 'b': options.size = figure(optarg); break;
        case 'c': options.count = figure(optarg); break;
        case 't': options.seconds = figure(optarg); break;
        case 'k': options.connections = figure(optarg); break;
        case 'r': options.rate = figure(optarg); break;
        case 'p': options.puts = figure(optarg); break;
        case 'E': options.edition = figure(optarg); break;
        case 'F': options.fresh = true; break;
        case 'm': options.miss = true; break;
        case 'l': options.learn = optarg; break;
        case 'e': options.etags = optarg; break;
        default: wrong_command("no such option");
        }
    }
    if (argc != optind + 2 || !options.filler || !options.files || !options.connections || options.size < MARK)
        wrong_command("a port, a prefix, --filler, --files, --connections and a --size of 16 or more are needed");
    if (!options.count && !options.seconds)
        wrong_command("one of --count and --seconds is needed");
    if (strlen(options.prefix = argv[optind + 1]) > HEAD / 2)
        wrong_command("the prefix is too long");
    options.port = figure(argv[optind]);
}

int main(int argc, char **argv)
{
    read_command(argc, argv);
    read_filler();
    etags = calloc(options.files, sizeof *etags);
    if (options.etags)
        read_etags();
    loop = epoll_create1(0);
    connections = calloc(options.connections, sizeof *connections);
    idle = calloc(options.connections, sizeof *idle);
    for (unsigned n = 0; n < options.connections; n++)
        open_connection(&connections[n]);

    double cpu_before = cpu();
    uint64_t begun = now();
    chance = mixed(begun);
    run();
    if (options.learn)
        write_etags();
    printf("{\"requests\": %ju, \"seconds\": %.6f, \"bytes\": %ju, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, "
           "\"p999\": %.1f, \"max\": %.1f, \"cpu\": %.3f, \"status\": %ju, \"wrong\": %ju, \"broken\": %ju}\n",
           (uintmax_t)answered, (last - begun) / 1e9, (uintmax_t)bytes, percentile(.5), percentile(.9), percentile(.99),
           percentile(.999), longest / 1e3, cpu() - cpu_before, (uintmax_t)bad_status, (uintmax_t)wrong, (uintmax_t)broken);
    return 0;
}
