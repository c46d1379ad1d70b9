/* Send datagrams from a file to one port, from one or many addresses, at a rate and for a time.
 *
 *   flood_sender FILE SOURCE SOURCES DESTINATION PORT PER_SECOND SECONDS
 *
 * FILE holds datagrams, each after its length (two bytes, little endian); they are sent in turn.
 * The sources are SOURCE and the SOURCES - 1 addresses after it. At the end, or at SIGTERM, it prints
 * how many were sent and in how many seconds. Raw sockets, up to 64 at a time: root, IPv4, for namespaces of a test only. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, MOST = 1 << 17, HEADERS = sizeof(struct iphdr) + sizeof(struct udphdr), SIZE = 1600 };

static volatile sig_atomic_t is_over;

static void end(int number) {
    (void)number;
    is_over = 1;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int count, char **arguments) {
    static uint8_t *datagrams[MOST];
    static uint16_t lengths[MOST];
    static uint8_t packets[BATCH][SIZE];
    if (count != 8) {
        fprintf(stderr, "usage: flood_sender FILE SOURCE SOURCES DESTINATION PORT PER_SECOND SECONDS\n");
        return 2;
    }
    FILE *file = fopen(arguments[1], "rb");
    if (file == NULL) fail(arguments[1]);
    size_t known = 0;
    uint8_t size[2];
    while (known < MOST && fread(size, 1, 2, file) == 2) {
        uint16_t length = (uint16_t)(size[0] | size[1] << 8);
        if (length > SIZE - HEADERS) return 2;
        datagrams[known] = malloc(length);
        if (datagrams[known] == NULL || fread(datagrams[known], 1, length, file) != length) return 2;
        lengths[known++] = length;
    }
    if (known == 0) return 2;
    uint32_t first = ntohl(inet_addr(arguments[2])), sources = (uint32_t)atol(arguments[3]);
    struct sockaddr_in destination = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(arguments[4])};
    uint16_t port = htons((uint16_t)atoi(arguments[5]));
    double per_second = atof(arguments[6]), seconds = atof(arguments[7]);

    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (raw < 0) fail("socket");
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i].iov_base = packets[i];
        messages[i].msg_hdr.msg_name = &destination;
        messages[i].msg_hdr.msg_namelen = sizeof destination;
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int batch = (int)(per_second / 500); /* some 500 bursts a second */
    batch = batch < 1 ? 1 : batch > BATCH ? BATCH : batch;
    uint64_t sent = 0;
    uint32_t random = 1;
    double began = now(), elapsed = 0;
    signal(SIGTERM, end);
    while (!is_over && (elapsed = now() - began) < seconds) {
        double due = (double)sent / per_second;
        if (due > elapsed) {
            struct timespec pause = {.tv_nsec = (long)((due - elapsed < 0.01 ? due - elapsed : 0.01) * 1e9)};
            nanosleep(&pause, NULL);
            continue;
        }
        for (int i = 0; i < batch; i++) {
            size_t which = (sent + (uint64_t)i) % known;
            uint16_t length = lengths[which];
            random = random * 1664525 + 1013904223; /* any order will do */
            struct iphdr ip = {
                .version = 4,
                .ihl = 5,
                .ttl = 64,
                .protocol = IPPROTO_UDP,
                .saddr = htonl(first + (random >> 8) % sources),
                .daddr = destination.sin_addr.s_addr,
                .tot_len = htons((uint16_t)(HEADERS + length)),
            };
            struct udphdr udp = {
                .source = htons((uint16_t)(1024 + (random >> 4) % 60000)),
                .dest = port,
                .len = htons((uint16_t)(sizeof udp + length)),
            };
            memcpy(packets[i], &ip, sizeof ip);
            memcpy(packets[i] + sizeof ip, &udp, sizeof udp);
            memcpy(packets[i] + HEADERS, datagrams[which], length);
            parts[i].iov_len = HEADERS + length;
        }
        int done = sendmmsg(raw, messages, (unsigned)batch, 0);
        if (done < 0 && errno != ENOBUFS && errno != EINTR) fail("sendmmsg");
        sent += done > 0 ? (uint64_t)done : 0;
    }
    printf("%llu %.3f\n", (unsigned long long)sent, elapsed);
    return 0;
}
