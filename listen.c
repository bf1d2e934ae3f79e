/* listen.c - where clients come from: addresses, a Unix socket, and who is let in.
 *
 * An address that cannot be had stops the start, unless it may be missing. Connections are taken in batches, and
 * refused as Redis does where there is no room, or where one comes from elsewhere and no password is set.
 */
#include "commands.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENERS_MAX 16
#define ACCEPTS_MAX   256 /* new connections a turn */

static int nlisteners, spare_fd;

/* Returns 0, or errno. */
static int listener_new(const struct sockaddr *sa, socklen_t n) {
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (sa->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    int error = bind(fd, sa, n) || listen(fd, config.tcp_backlog) ? errno : 0;
    if (error) close(fd);
    else if (nlisteners++ < LISTENERS_MAX) server_watch(fd);
    else die("More than %d addresses to listen on: shorten --bind", LISTENERS_MAX);
    return error;
}

/* An address that is not to be had may be missing where a "-" stands in front of it. */
static void listen_on(const char *address) {
    bool optional = *address == '-';
    const char *host = address + optional;
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    snprintf(port, sizeof port, "%d", config.port);
    if (!strcmp(host, "*")) hints.ai_family = AF_INET, host = NULL;
    else if (!strcmp(host, "::*")) hints.ai_family = AF_INET6, host = NULL;
    int bad = getaddrinfo(host, port, &hints, &found);
    if (bad && optional) return;
    if (bad) die("Cannot listen on %s: %s. Mend --bind.", address, gai_strerror(bad));
    int e = listener_new(found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (e && (!optional || (e != EADDRNOTAVAIL && e != EAFNOSUPPORT && e != EPROTONOSUPPORT)))
        die("Cannot listen on %s port %d: %s. Is another server running there? Choose another with --port or --bind.",
            address, config.port, strerror(e));
}

static struct sockaddr_un unix_address = {.sun_family = AF_UNIX};

/* A socket of a server that has ended gives way, another's does not. */
static void check_unix(void) {
    size_t n = strlen(config.unixsocket), max = sizeof unix_address.sun_path - 1;
    if (n > max) die("--unixsocket: the path is longer than %zu bytes", max);
    memcpy(unix_address.sun_path, config.unixsocket, n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (n && (connect(fd, (struct sockaddr *)&unix_address, sizeof unix_address) == 0 || errno == EAGAIN)) /* busy */
        die("Another server listens on the socket %s. Choose another with --unixsocket.", config.unixsocket);
    close(fd);
}

static void forget_unix(void) { unlink(config.unixsocket); }

/* As the user who will serve there: root's file others could not use, and he could not take it away. */
void listen_unix(void) {
    if (!*config.unixsocket && !nlisteners)
        die("Nothing to listen on: --port is 0 or no address of --bind is to be had");
    if (!*config.unixsocket) return;
    struct stat old;
    if (!lstat(config.unixsocket, &old) && S_ISSOCK(old.st_mode)) unlink(config.unixsocket); /* and nothing else */
    int e = listener_new((struct sockaddr *)&unix_address, sizeof unix_address);
    if (e) die("Cannot listen on the socket %s: %s", config.unixsocket, strerror(e));
    atexit(forget_unix);
    if (config.unixsocketperm) chmod(config.unixsocket, (mode_t)config.unixsocketperm);
}

void listen_all(void) {
    check_unix();
    char *copy = resp_need(strdup(config.bind)), *save = NULL;
    spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (config.port)
        for (char *address = strtok_r(copy, " ", &save); address; address = strtok_r(NULL, " ", &save))
            listen_on(address);
    free(copy);
}

static void refuse(int fd, const char *text) {
    server_stats.rejected++;
    if (write(fd, text, strlen(text)) < 0) server_log(LOG_DEBUG, "A refused connection was gone already");
    close(fd);
}

static const char too_many_told[] = "-ERR max number of clients reached\r\n";
static const char stranger_told[] =
    "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the "
    "default user. In this mode connections are only accepted from the loopback interface. Set a password with "
    "requirepass, or turn protected mode off with 'CONFIG SET protected-mode no' from the loopback interface.\r\n";

static bool is_local(const struct sockaddr_storage *ss) {
    if (ss->ss_family == AF_INET) return (ntohl(((const struct sockaddr_in *)ss)->sin_addr.s_addr) >> 24) == 127;
    if (ss->ss_family == AF_INET6) return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)ss)->sin6_addr);
    return true;
}

static void socket_tune(int fd) {
    int one = 1, idle = config.tcp_keepalive, interval = idle / 3 > 0 ? idle / 3 : 1, probes = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (!idle) return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

/* No descriptor is free: the spare one is given up for a moment, so that the connection can be taken and told. */
static void accept_without_descriptors(int listener) {
    static int64_t said_ms;
    if (!said_ms || repl_clock() - said_ms > 10000) {
        server_log(LOG_WARNING, "Connections are refused: all descriptors that ulimit -n allows are in use");
        said_ms = repl_clock();
    }
    close(spare_fd);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) refuse(fd, too_many_told);
    spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void listen_accept(int listener) {
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage ss = {0};
        socklen_t n = sizeof ss;
        int fd = accept4(listener, (struct sockaddr *)&ss, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) accept_without_descriptors(listener);
        if (fd < 0) return;
        bool is_unix = ss.ss_family == AF_UNIX, local = is_local(&ss);
        if (!is_unix) socket_tune(fd);
        /* Open to the world without a password is hardly what anyone wants. */
        if (!local && config.protected_mode && !*config.requirepass) refuse(fd, stranger_told);
        else if (client_count() >= (size_t)config.maxclients) refuse(fd, too_many_told);
        else client_new(fd, (is_unix ? CLIENT_UNIX : 0) | (local ? CLIENT_LOCAL : 0));
    }
}
