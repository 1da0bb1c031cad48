/* What memload.c and httpload.c share: the time, chance, a histogram of latencies, and figures on the command line. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum {
    STEPS = 64,          /* buckets for each doubling of a latency: they are 1.6 % wide */
    BUCKETS = 59 * STEPS /* up to 2^63 ns */
};
#define SCATTER 2654435761u /* a prime: i * SCATTER % n is another number for each i below n, anywhere */
#define SECOND 1000000000ull

static uint64_t buckets[BUCKETS], longest;

static void die(const char *form, ...)
{
    va_list arguments;
    va_start(arguments, form);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, form, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static double cpu(void) /* seconds of this process */
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t mixed(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static char *put_number(char *at, unsigned number)
{
    char digits[12];
    int count = 0;
    do digits[count++] = '0' + number % 10;
    while (number /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
}

static void record(uint64_t latency) /* in nanoseconds */
{
    if (latency > longest)
        longest = latency;
    int shift = latency < STEPS ? 0 : 63 - __builtin_clzll(latency) - 6;
    unsigned bucket = latency < STEPS ? latency : (shift + 1) * STEPS + (latency >> shift) - STEPS;
    buckets[bucket]++;
}

static double percentile(double share) /* in microseconds: the upper end of the bucket */
{
    uint64_t total = 0, seen = 0;
    for (unsigned n = 0; n < BUCKETS; n++)
        total += buckets[n];
    for (unsigned n = 0; n < BUCKETS; n++) {
        seen += buckets[n];
        if (seen && seen >= total * share) {
            uint64_t end = n < STEPS ? n : ((uint64_t)(n % STEPS + STEPS + 1) << (n / STEPS - 1)) - 1;
            return (end < longest ? end : longest) / 1e3;
        }
    }
    return 0;
}

static void wrong_command(const char *why)
{
    const char *name = program_invocation_short_name;
    fprintf(stderr, "%s: %s; the head of %s.c says what it takes\n", name, why, name);
    exit(2);
}

static double figure(const char *text)
{
    char *end;
    double number = strtod(text ? text : "", &end);
    if (!text || end == text || *end || number < 0 || number > 1e12)
        wrong_command(text ? text : "a figure is missing");
    return number;
}
