/* What the parts of the sink share: its options, connections, streams and counts. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
  const char *mode, *path, *type;
  int port, control, pid, connections, streams, burst, outstanding, stuck;
  uint32_t window;
  double rate, warmup, seconds, patience;
  bool latency, hold, share_credit;
  uint8_t body[4096];
  int body_length;
};

/* One call (HTTP/2) or one subscription (NATS). */
struct stream {
  uint64_t version, events;
  uint32_t credit;   /* bytes taken that the sender has not been given back */
  uint32_t need;     /* of the gRPC message in the making: its bytes with the envelope; 0 while the envelope is incomplete */
  uint32_t have;
  uint8_t *message;  /* only while a message straddles chunks */
  uint8_t envelope[5];
  bool stuck, answered, ended;
};

struct connection {
  int fd;
  struct stream *streams;
  uint64_t credit;
  /* the frame, or the NATS line, in the making */
  uint8_t head[64];
  int head_length;
  uint8_t type, flags;
  uint32_t id, remaining, skip;
  struct stream *into;
};

struct counts {
  uint64_t events, messages, checkpoints, gaps, bytes, answered, ended, resets, goaways, disorder, closed;
};

extern struct options options;
extern struct counts counts;
/* Latencies of streams that are not stuck, in steps of 1/16 of a power of two of microseconds. */
extern uint64_t latencies[1024];
extern bool measuring;

uint64_t now_ns(void);
void send_all(int fd, const void *bytes, size_t length);
void note_stamp(const uint8_t *digits);

void h2_open(struct connection *connection);
void h2_read(struct connection *connection, const uint8_t *bytes, size_t length);
void nats_open(struct connection *connection);
void nats_read(struct connection *connection, const uint8_t *bytes, size_t length);
void nats_publish(int fd, int count, int burst);
/* A whole SubscribeResponse without its envelope. */
void read_message(struct stream *stream, const uint8_t *bytes, size_t length);
