/* Load on one server of memcached's text protocol, from one thread: how much it answers, how fast, and whether rightly.
 *
 *   memload PORT --items N [--load | --count N | --seconds S] [--connections C] [--pipeline P] [--sets PERCENT]
 *           [--hot N | --miss] [--every MS] [--sizes SMALLEST LARGEST] [--seed N]
 *
 * Items 0 to N - 1 have the keys /bench/00000000 on. An item's value follows from its number: it is SMALLEST to LARGEST
 * bytes long, evenly spread, and begins with the key; random bytes follow. So every answer can be checked to the last
 * byte, whoever wrote the item, and is.
 *
 *   --load        set every item once, in scattered order, as fast as the connections and the pipeline allow
 *   --count       so many requests; --seconds: requests for so long, and then until the last one is answered
 *   --pipeline    requests in flight on each connection
 *   --sets        share of sets; the others are gets
 *   --hot         only so many items, scattered over all; --miss: ask for items N to 2 N - 1, which must not be there
 *   --every       one request each MS milliseconds on one connection, answered or not the ones before, as far as the
 *                 pipeline allows; its latency counts from when it was due
 *
 * Without --every a connection sends its next request when one is answered, so that a slow server is asked less.
 * Prints one line of JSON: requests answered, seconds, the bytes of their values, latencies in microseconds (of buckets
 * that are 1.6 % wide, max is exact), CPU seconds of its own, and errors: "missing" (no such item), "wrong" (another
 * answer than the item, or an item where none is), "refused" (a line that says no), "broken" (no answer: the connection
 * ended, or all of them were silent for 30 seconds). The first error is shown on standard error.
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
    KEY = 15,            /* bytes of a key */
    DIGITS = 8,          /* of a key's number */
    FILLER = 1 << 16,    /* random bytes that values are cut from */
    LINE = 512,          /* bytes of a request's or an answer's line, at most */
    PATIENCE = 30,       /* seconds of silence before giving up */
    EVENTS = 256
};
#define MAX_ITEMS 50000000u /* twice as many have 8 digits */

struct options {
    unsigned port, connections, pipeline, sets, every;
    uint32_t items, hot;
    uint64_t count;
    double seconds;
    bool load, miss;
    unsigned smallest, largest;
    uint64_t seed;
};

struct flight { /* a request that isn't answered yet */
    uint64_t start;
    uint32_t number;
    bool set;
};

struct connection {
    int fd; /* -1 when it is broken */
    bool blocked; /* what is to be sent waits until the server takes it */
    char *in, *out;
    size_t received, sent, queued; /* bytes in ``in``; of ``out`` those gone, and all */
    struct flight *flights; /* a ring */
    unsigned first, flying;
};

static struct options options = {.connections = 1, .pipeline = 1, .smallest = 100, .largest = 1024, .seed = 1};
static char *filler;
static size_t capacity_in, capacity_out;
static uint64_t asked, answered, bytes, missing, wrong, refused, broken;
static uint64_t last; /* when the last answer came, or the run began */
static uint64_t deadline; /* when --seconds are over */
static uint64_t due; /* with --every: when the next request is to be sent */
static int loop, timer;

/* --- items --- */

static uint32_t below(uint32_t bound)
{
    return (mixed(options.seed++) >> 32) * bound >> 32;
}

static unsigned size_of(uint32_t number)
{
    return options.smallest + mixed(number) % (options.largest - options.smallest + 1);
}

static const char *rest_of(uint32_t number) /* what follows the key in an item's value */
{
    return filler + (mixed(number) >> 48);
}

static char *put_key(char *at, uint32_t number)
{
    memcpy(at, "/bench/", KEY - DIGITS);
    for (int place = KEY - 1; place >= KEY - DIGITS; place--, number /= 10)
        at[place] = '0' + number % 10;
    return at + KEY;
}

/* "set /bench/00000007 0 0 100\r\n" and "VALUE /bench/00000007 0 100\r\n" */
static char *put_line(char *at, const char *word, uint32_t number, const char *figures)
{
    at = put_key(stpcpy(at, word), number);
    at = put_number(stpcpy(at, figures), size_of(number));
    return stpcpy(at, "\r\n");
}

/* --- what came of it --- */

static void error(uint64_t *counter, uint32_t number, const char *answer, size_t length)
{
    while (length && (unsigned char)answer[length - 1] <= ' ')
        length--;
    if (!(missing + wrong + refused + broken))
        fprintf(stderr, "memload: /bench/%08u: %.*s\n", number, length > 100 ? 100 : (int)length, answer);
    ++*counter;
}

/* --- requests --- */

static bool more_to_ask(uint64_t start)
{
    if (options.load)
        return asked < options.items;
    return options.count ? asked < options.count : start < deadline;
}

static uint32_t next_number(void)
{
    if (options.load)
        return asked * SCATTER % options.items;
    if (options.hot)
        return (uint64_t)below(options.hot) * SCATTER % options.items;
    return below(options.items) + (options.miss ? options.items : 0);
}

static void ask(struct connection *connection, uint64_t start)
{
    struct flight flight = {start, next_number(), options.load || below(100) < options.sets};
    char *at = connection->out + connection->queued;
    if (flight.set) {
        at = put_key(put_line(at, "set ", flight.number, " 0 0 "), flight.number);
        at = mempcpy(at, rest_of(flight.number), size_of(flight.number) - KEY);
    } else
        at = put_key(stpcpy(at, "get "), flight.number);
    at = stpcpy(at, "\r\n");
    connection->queued = at - connection->out;
    connection->flights[(connection->first + connection->flying++) % options.pipeline] = flight;
    asked++;
}

/* --- connections --- */

static void give_up(struct connection *connection, const char *why)
{
    for (; connection->flying; connection->flying--)
        error(&broken, connection->flights[connection->first++ % options.pipeline].number, why, strlen(why));
    close(connection->fd);
    connection->fd = -1;
}

static void watch(struct connection *connection, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (connection->blocked ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(loop, operation, connection->fd, &event))
        die("epoll_ctl: %s", strerror(errno));
}

static void send_queued(struct connection *connection)
{
    while (connection->sent < connection->queued) {
        ssize_t length = send(connection->fd, connection->out + connection->sent,
                              connection->queued - connection->sent, MSG_NOSIGNAL);
        if (length < 0 && errno != EAGAIN) {
            give_up(connection, strerror(errno));
            return;
        }
        if (length < 0)
            break;
        connection->sent += length;
    }
    bool blocked = connection->sent < connection->queued;
    memmove(connection->out, connection->out + connection->sent, connection->queued - connection->sent);
    connection->queued -= connection->sent;
    connection->sent = 0;
    if (blocked != connection->blocked) {
        connection->blocked = blocked;
        watch(connection, EPOLL_CTL_MOD);
    }
}

/* How many bytes the answer to the oldest request has, once it is there and checked; 0: more must come; -1: it can't be
 * told where it ends. */
static ssize_t check(const struct flight *flight, const char *answer, size_t received)
{
    const char *end_of_line = memchr(answer, '\n', received);
    if (!end_of_line)
        return received < LINE ? 0 : -1;
    size_t line = end_of_line + 1 - answer;
    if (line > LINE)
        return -1;
    if (flight->set) {
        if (line == 8 && !memcmp(answer, "STORED\r\n", 8))
            bytes += size_of(flight->number);
        else
            error(&refused, flight->number, answer, line);
        return line;
    }
    if (line == 5 && !memcmp(answer, "END\r\n", 5)) {
        if (!options.miss)
            error(&missing, flight->number, answer, line);
        return line;
    }
    if (memcmp(answer, "VALUE ", 6)) {
        error(&refused, flight->number, answer, line);
        return line;
    }
    char head[LINE];
    size_t expected = put_line(head, "VALUE ", flight->number, " 0 ") - head;
    if (options.miss || line != expected || memcmp(answer, head, line)) {
        size_t size; /* what it says it is: to get past it */
        memcpy(head, answer, line);
        head[line - 1] = 0;
        if (sscanf(head, "VALUE %*s %*u %zu", &size) != 1 || size > capacity_in - line - 7)
            return -1;
        if (received < line + size + 7)
            return 0;
        error(&wrong, flight->number, answer, line);
        return line + size + 7;
    }
    size_t size = size_of(flight->number);
    if (received < line + size + 7)
        return 0;
    const char *value = answer + line;
    if (memcmp(value, head + 6, KEY) || memcmp(value + KEY, rest_of(flight->number), size - KEY) ||
        memcmp(value + size, "\r\nEND\r\n", 7))
        error(&wrong, flight->number, answer, line);
    bytes += size;
    return line + size + 7;
}

static void receive(struct connection *connection)
{
    ssize_t length = read(connection->fd, connection->in + connection->received, capacity_in - connection->received);
    if (length <= 0) {
        if (length == 0 || errno != EAGAIN)
            give_up(connection, length ? strerror(errno) : "the server hung up");
        return;
    }
    connection->received += length;
    uint64_t time = now();
    size_t taken = 0;
    while (connection->flying && taken < connection->received) {
        const struct flight *flight = &connection->flights[connection->first];
        ssize_t answer = check(flight, connection->in + taken, connection->received - taken);
        if (answer == 0)
            break;
        if (answer < 0) {
            give_up(connection, "an answer without an end");
            return;
        }
        taken += answer;
        record(time - flight->start);
        last = time;
        connection->first = (connection->first + 1) % options.pipeline;
        connection->flying--;
        answered++;
    }
    if (!connection->flying && taken < connection->received) {
        error(&wrong, 0, "more than was asked for", 23);
        taken = connection->received;
    }
    memmove(connection->in, connection->in + taken, connection->received - taken);
    connection->received -= taken;
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
    connection->in = malloc(capacity_in);
    connection->out = malloc(capacity_out);
    connection->flights = calloc(options.pipeline, sizeof *connection->flights);
    if (!connection->in || !connection->out || !connection->flights)
        die("out of memory");
    watch(connection, EPOLL_CTL_ADD);
}

/* --- the run --- */

/* With --every: ask what is due, and have the timer ring for the next one, unless one must be answered before. */
static void ask_what_is_due(struct connection *connection)
{
    uint64_t time = now();
    bool more;
    while ((more = connection->flying < options.pipeline && more_to_ask(due)) && due <= time) {
        ask(connection, due);
        due += options.every * (SECOND / 1000);
    }
    uint64_t next = more ? due : 0; /* 0: never */
    struct itimerspec when = {.it_value = {.tv_sec = next / SECOND, .tv_nsec = next % SECOND}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Ask what there is room for. */
static void go_on(struct connection *connection)
{
    if (options.every)
        ask_what_is_due(connection);
    else
        while (connection->flying < options.pipeline && more_to_ask(last))
            ask(connection, last);
    send_queued(connection);
}

static void begin(struct connection *connections)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}; /* which no connection's has */
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (epoll_ctl(loop, EPOLL_CTL_ADD, timer, &event))
        die("epoll_ctl: %s", strerror(errno));
    due = last = now();
    deadline = last + options.seconds * SECOND;
    for (unsigned n = 0; n < options.connections; n++, last = now())
        go_on(&connections[n]);
}

static bool goes_on(const struct connection *connections)
{
    if (options.every)
        return connections->fd >= 0 && (connections->flying || more_to_ask(due));
    for (unsigned n = 0; n < options.connections; n++)
        if (connections[n].fd >= 0 && connections[n].flying)
            return true;
    return false;
}

static void run(struct connection *connections)
{
    begin(connections);
    while (goes_on(connections)) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(loop, events, EVENTS, PATIENCE * 1000);
        for (int n = 0; n < count; n++) {
            struct connection *connection = events[n].data.ptr ? events[n].data.ptr : connections;
            if (events[n].data.ptr && events[n].events & ~EPOLLOUT)
                receive(connection);
            if (connection->fd >= 0)
                go_on(connection);
        }
        for (unsigned n = 0; count == 0 && n < options.connections; n++)
            if (connections[n].fd >= 0)
                give_up(&connections[n], "no answer for 30 seconds");
    }
}

static void read_command(int argc, char **argv)
{
    static const struct option names[] = {
        {"items", 1, 0, 'i'},    {"load", 0, 0, 'l'}, {"count", 1, 0, 'n'}, {"seconds", 1, 0, 't'},
        {"connections", 1, 0, 'c'}, {"pipeline", 1, 0, 'p'}, {"sets", 1, 0, 's'}, {"hot", 1, 0, 'h'},
        {"miss", 0, 0, 'm'},     {"every", 1, 0, 'e'}, {"sizes", 1, 0, 'b'}, {"seed", 1, 0, 'r'}, {0}};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'i': options.items = figure(optarg); break;
        case 'l': options.load = true; break;
        case 'n': options.count = figure(optarg); break;
        case 't': options.seconds = figure(optarg); break;
        case 'c': options.connections = figure(optarg); break;
        case 'p': options.pipeline = figure(optarg); break;
        case 's': options.sets = figure(optarg); break;
        case 'h': options.hot = figure(optarg); break;
        case 'm': options.miss = true; break;
        case 'e': options.every = figure(optarg); break;
        case 'b':
            options.smallest = figure(optarg);
            options.largest = figure(argv[optind] ? argv[optind++] : NULL);
            break;
        case 'r': options.seed = figure(optarg); break;
        default: wrong_command("no such option");
        }
    }
    options.port = figure(argv[optind]);
    if (argc != optind + 1 || !options.items || options.items > MAX_ITEMS || options.hot > options.items)
        wrong_command("a port and 1 to 50,000,000 items are needed, not fewer than hot ones");
    if (options.load + (options.count > 0) + (options.seconds > 0) != 1)
        wrong_command("one of --load, --count and --seconds is needed");
    if (options.smallest < KEY || options.largest < options.smallest || options.largest > 1 << 20)
        wrong_command("--sizes: SMALLEST is 15 or more, LARGEST not less, and up to 1048576");
    if (!options.connections || !options.pipeline || (options.every && options.connections > 1))
        wrong_command("there must be connections and a pipeline, and with --every just one connection");
    if (options.miss && (options.load || options.sets || options.hot))
        wrong_command("--miss is for gets of what isn't there");
}

int main(int argc, char **argv)
{
    read_command(argc, argv);
    filler = malloc(FILLER + options.largest);
    for (size_t n = 0; n < FILLER + options.largest; n++)
        filler[n] = mixed(n) >> 56;
    capacity_in = 2 * (LINE + options.largest) > 1 << 16 ? 2 * (LINE + options.largest) : 1 << 16;
    capacity_out = (size_t)options.pipeline * (LINE + options.largest);
    options.seed = mixed(options.seed);
    loop = epoll_create1(0);
    struct connection *connections = calloc(options.connections, sizeof *connections);
    for (unsigned n = 0; n < options.connections; n++)
        open_connection(&connections[n]);

    double cpu_before = cpu();
    uint64_t begun = now();
    run(connections);
    double seconds = (last - begun) / 1e9;
    printf("{\"requests\": %ju, \"seconds\": %.6f, \"bytes\": %ju, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, "
           "\"p999\": %.1f, \"max\": %.1f, \"cpu\": %.3f, "
           "\"missing\": %ju, \"wrong\": %ju, \"refused\": %ju, \"broken\": %ju}\n",
           (uintmax_t)answered, seconds, (uintmax_t)bytes, percentile(.5), percentile(.9), percentile(.99),
           percentile(.999), longest / 1e3, cpu() - cpu_before,
           (uintmax_t)missing, (uintmax_t)wrong, (uintmax_t)refused, (uintmax_t)broken);
    return 0;
}
