/*
 * A counting client that holds thousands of streams and takes millions of events a second on less than one core, so that
 * the server is what is measured. It opens the streams, lets the publisher beside the server run as fast as deliveries
 * come back (closed loop: so many events outstanding) or at a rate (open loop), and prints one line of JSON.
 *
 *   cc -O2 -o sink *.c;  ./sink mode=h2 port=… control=… pid=… connections=10 streams=100 seconds=4 …
 *
 * The publisher listens on the control port: "credit N" lets it publish N more, "rate R" lets it publish R per second,
 * "stop" ends it, which it answers by "published N". For NATS the sink publishes itself.
 */
#define _GNU_SOURCE
#include "sink.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct options options = {.mode = "h2", .path = "/millrace.v1.FeedService/Subscribe", .type = "application/grpc+proto",
  .connections = 1, .streams = 1, .burst = 1, .outstanding = 64, .window = 0x7fffffff, .warmup = 1, .seconds = 4, .patience = 10};
struct counts counts;
uint64_t latencies[1024];
bool measuring;

static struct connection *connections;
static int poller, control = -1;
static bool nats;
static uint64_t granted;
static uint8_t inbox[1 << 20];

uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static double now(void) { return now_ns() * 1e-9; }

static void fail(const char *what) {
  fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
  exit(1);
}

void send_all(int fd, const void *bytes, size_t length) {
  const uint8_t *at = bytes;
  while (length > 0) {
    ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      struct pollfd ready = {.fd = fd, .events = POLLOUT};
      poll(&ready, 1, 1000);
    } else if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
      /* Whoever counts in the end sees what is missing. */
      return;
    } else if (sent < 0) fail("write");
    else {
      at += sent;
      length -= sent;
    }
  }
}

void note_stamp(const uint8_t *digits) {
  if (!measuring) return;
  uint64_t stamp = 0;
  for (int i = 0; i < 19; i++) stamp = stamp * 10 + (digits[i] - '0');
  uint64_t at = now_ns(), us = at > stamp ? (at - stamp) / 1000 : 0;
  int bits = us < 16 ? 4 : 63 - __builtin_clzll(us);
  latencies[us < 16 ? us : (bits - 3) * 16 + ((us >> (bits - 4)) & 15)]++;
}

/* Of all that were noted, in ms: the upper end of the step. */
static double quantile(double share) {
  uint64_t total = 0, seen = 0;
  for (int i = 0; i < 1024; i++) total += latencies[i];
  for (int i = 0; i < 1024; i++) {
    seen += latencies[i];
    if (total == 0 || seen < total * share) continue;
    return i < 16 ? (i + 1) / 1000.0 : (double)((uint64_t)(17 + i % 16) << (i / 16 - 1)) / 1000.0;
  }
  return 0;
}

/* Seconds of all threads. */
static double cpu_of(int pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  unsigned long user = 0, system = 0;
  char *rest = strrchr(text, ')');
  if (rest != NULL) sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return (user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static int dial(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  return fd;
}

static void open_streams(void) {
  poller = epoll_create1(0);
  connections = calloc(options.connections, sizeof *connections);
  for (int i = 0; i < options.connections; i++) {
    struct connection *connection = &connections[i];
    connection->streams = calloc(options.streams, sizeof *connection->streams);
    connection->fd = dial(options.port);
    nats ? nats_open(connection) : h2_open(connection);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
  }
  /* One after another, by connections first: with one connection each, these are whole connections. */
  for (int i = 0; i < options.stuck; i++)
    connections[i % options.connections].streams[i / options.connections].stuck = true;
}

static void take_all(int timeout_ms) {
  struct epoll_event events[256];
  int ready = epoll_wait(poller, events, 256, timeout_ms);
  for (int i = 0; i < ready; i++) {
    struct connection *connection = events[i].data.ptr;
    ssize_t length = read(connection->fd, inbox, sizeof inbox);
    if (length > 0) {
      counts.bytes += length;
      nats ? nats_read(connection, inbox, length) : h2_read(connection, inbox, length);
    } else if (length == 0 || errno != EAGAIN) {
      epoll_ctl(poller, EPOLL_CTL_DEL, connection->fd, NULL);
      counts.closed++;
    }
  }
}

static uint64_t stream_count(void) { return (uint64_t)options.connections * options.streams; }
static uint64_t fast_count(void) { return stream_count() - options.stuck; }

static void say(const char *format, double number) {
  char line[64];
  int length = snprintf(line, sizeof line, format, number);
  send_all(control, line, length);
}

/* Lets so many events be outstanding, measured by those that all streams have had on average. */
static void grant(void) {
  uint64_t allowed = counts.events / fast_count() + options.outstanding, step = options.outstanding / 4;
  if (step < (uint64_t)options.burst) step = options.burst;
  if (allowed < granted + step) return;
  uint64_t more = (allowed - granted) / options.burst * options.burst;
  if (nats) nats_publish(control, more, options.burst);
  else say("credit %.0f\n", more);
  granted += more;
}

static uint64_t published(void) {
  if (nats) return granted;
  char text[128] = "";
  size_t length = 0;
  say("stop\n", 0);
  struct pollfd ready = {.fd = control, .events = POLLIN};
  double until = now() + options.patience;
  while (strchr(text, '\n') == NULL && now() < until && length < sizeof text - 1) {
    take_all(1);
    if (poll(&ready, 1, 0) != 1) continue;
    ssize_t got = read(control, text + length, sizeof text - 1 - length);
    if (got <= 0) break;
    length += got;
  }
  unsigned long long events = 0;
  if (sscanf(text, "published %llu", &events) != 1) fail("the publisher does not say what it published");
  return events;
}

/* For NATS in the open loop: what has fallen due since it began. */
static void publish_due(void) {
  static double begun;
  if (begun == 0) begun = now();
  uint64_t due = (now() - begun) * options.rate;
  if (due <= granted) return;
  nats_publish(control, due - granted, 1);
  granted = due;
}

static void run_for(double seconds) {
  double until = now() + seconds;
  while (now() < until) {
    if (options.rate == 0) grant();
    else if (nats) publish_due();
    take_all(nats && options.rate > 0 ? 1 : 10);
  }
}

static bool every_stream_has(uint64_t events) {
  for (int i = 0; i < options.connections; i++)
    for (int j = 0; j < options.streams; j++) {
      struct stream *stream = &connections[i].streams[j];
      if (!stream->stuck && stream->events != events) return false;
    }
  return true;
}

static void measure(void) {
  control = dial(options.control != 0 ? options.control : options.port);
  if (nats) send_all(control, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n", 44);
  if (options.rate > 0 && !nats) say("rate %f\n", options.rate);
  run_for(options.warmup);
  struct counts before = counts;
  double begun = now(), server = cpu_of(options.pid), own = own_cpu();
  measuring = true;
  run_for(options.seconds);
  double elapsed = now() - begun, used = cpu_of(options.pid) - server, sink = own_cpu() - own;
  uint64_t events = counts.events - before.events, messages = counts.messages - before.messages;
  uint64_t total = published(), last = counts.events;
  for (double quiet = now(); counts.events < total * fast_count() && now() - quiet < options.patience;) {
    take_all(10);
    if (counts.events != last) quiet = now();
    last = counts.events;
  }
  measuring = false;
  printf("{\"streams\":%llu,\"published\":%llu,\"delivered\":%llu,\"exact\":%s,\"seconds\":%.3f,\"perSecond\":%.0f,"
    "\"serverMicros\":%.4f,\"serverCores\":%.3f,\"sinkCores\":%.3f,\"eventsPerMessage\":%.2f,\"bytes\":%llu,"
    "\"p50Ms\":%.3f,\"p99Ms\":%.3f,\"maxMs\":%.3f,\"gaps\":%llu,\"disorder\":%llu,\"ended\":%llu,\"resets\":%llu,"
    "\"goaways\":%llu,\"closed\":%llu}\n",
    (unsigned long long)stream_count(), (unsigned long long)total, (unsigned long long)counts.events,
    every_stream_has(total) && counts.disorder == 0 ? "true" : "false", elapsed, events / elapsed,
    events == 0 ? 0 : used * 1e6 / events, used / elapsed, sink / elapsed, messages == 0 ? 0 : (double)events / messages,
    (unsigned long long)(counts.bytes - before.bytes), quantile(0.5), quantile(0.99), quantile(1),
    (unsigned long long)counts.gaps, (unsigned long long)counts.disorder, (unsigned long long)counts.ended,
    (unsigned long long)counts.resets, (unsigned long long)counts.goaways, (unsigned long long)counts.closed);
}

/* Keeps the streams open until standard input ends. */
static void hold(void) {
  printf("{\"streams\":%llu,\"open\":%llu}\n", (unsigned long long)stream_count(), (unsigned long long)counts.answered);
  fflush(stdout);
  struct pollfd input = {.fd = 0, .events = POLLIN};
  while (poll(&input, 1, 0) == 0) take_all(50);
}

static double number(const char *text) { return strtod(text, NULL); }

static void read_option(char *argument) {
  char *value = strchr(argument, '=');
  if (value == NULL) fail(argument);
  *value++ = 0;
  struct { const char *name; int *into; } integers[] = {{"port", &options.port}, {"control", &options.control},
    {"pid", &options.pid}, {"connections", &options.connections}, {"streams", &options.streams}, {"burst", &options.burst},
    {"outstanding", &options.outstanding}, {"stuck", &options.stuck}};
  for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
    if (strcmp(argument, integers[i].name) == 0) *integers[i].into = atoi(value);
  if (strcmp(argument, "mode") == 0) options.mode = value;
  if (strcmp(argument, "path") == 0) options.path = value;
  if (strcmp(argument, "type") == 0) options.type = value;
  if (strcmp(argument, "window") == 0) options.window = number(value);
  if (strcmp(argument, "rate") == 0) options.rate = number(value);
  if (strcmp(argument, "warmup") == 0) options.warmup = number(value);
  if (strcmp(argument, "seconds") == 0) options.seconds = number(value);
  if (strcmp(argument, "patience") == 0) options.patience = number(value);
  if (strcmp(argument, "latency") == 0) options.latency = number(value) != 0;
  if (strcmp(argument, "hold") == 0) options.hold = number(value) != 0;
  if (strcmp(argument, "shareCredit") == 0) options.share_credit = number(value) != 0;
  if (strcmp(argument, "body") == 0)
    for (; sscanf(value, "%2hhx", &options.body[options.body_length]) == 1; value += 2)
      if (++options.body_length == sizeof options.body) break;
}

int main(int count, char **arguments) {
  for (int i = 1; i < count; i++) read_option(arguments[i]);
  nats = strcmp(options.mode, "nats") == 0;
  open_streams();
  double until = now() + options.patience + stream_count() / 200.0;
  while (counts.answered < stream_count() && now() < until) take_all(20);
  if (counts.answered < stream_count()) {
    fprintf(stderr, "sink: %llu of %llu streams opened\n", (unsigned long long)counts.answered, (unsigned long long)stream_count());
    return 1;
  }
  options.hold ? hold() : measure();
  return 0;
}
