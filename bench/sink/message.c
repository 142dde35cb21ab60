/* Reads just enough of millrace.v1.SubscribeResponse: counts events, checks that versions are dense, finds the stamp. */
#include "sink.h"
#include <stdio.h>
#include <stdlib.h>

static inline uint64_t varint(const uint8_t **at, const uint8_t *end) {
  uint64_t value = 0;
  for (int shift = 0; *at < end && shift < 64; shift += 7) {
    uint8_t byte = *(*at)++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  fprintf(stderr, "sink: a message that is no protobuf\n");
  exit(1);
}

/* Moves behind a field; for a length-delimited one `*body` and the result are its content. */
static inline size_t field(const uint8_t **at, const uint8_t *end, uint32_t tag, const uint8_t **body) {
  size_t length = 0;
  switch (tag & 7) {
    case 0: varint(at, end); return 0;
    case 1: *at += 8; return 0;
    case 5: *at += 4; return 0;
    default: length = varint(at, end);
  }
  if (length > (size_t)(end - *at)) {
    fprintf(stderr, "sink: a field longer than its message\n");
    exit(1);
  }
  *body = *at;
  *at += length;
  return length;
}

/* Payloads begin {"at":"<19 digits of the monotonic clock in ns>". */
static void read_payload(const uint8_t *at, const uint8_t *end) {
  const uint8_t *json;
  uint32_t tag = varint(&at, end);
  if (tag != 0x0a) return;
  size_t length = field(&at, end, tag, &json);
  if (length > 26 && json[7] >= '0' && json[7] <= '9') note_stamp(json + 7);
}

static void read_event(struct stream *stream, const uint8_t *at, const uint8_t *end) {
  const uint8_t *body = at;
  uint64_t version = 0;
  while (at < end) {
    uint32_t tag = varint(&at, end);
    if (tag == 0x08) {
      version = varint(&at, end);
      if (!options.latency) break;
      continue;
    }
    size_t length = field(&at, end, tag, &body);
    if (tag != 0x32) continue;
    if (!stream->stuck) read_payload(body, body + length);
    break;
  }
  if (version == 0 || (stream->version != 0 && version != stream->version + 1)) counts.disorder++;
  stream->version = version;
  stream->events++;
  if (!stream->stuck) counts.events++;
}

void read_message(struct stream *stream, const uint8_t *at, size_t size) {
  const uint8_t *end = at + size, *body = at;
  counts.messages++;
  while (at < end) {
    uint32_t tag = varint(&at, end);
    size_t length = field(&at, end, tag, &body);
    if (tag == 0x1a) counts.checkpoints++;
    else if (tag == 0x22) counts.gaps++;
    else if (tag == 0x0a && !stream->answered) {
      stream->answered = true;
      counts.answered++;
    } else if (tag == 0x12) {
      for (const uint8_t *in = body, *stop = body + length, *event = body; in < stop;) {
        uint32_t inner = varint(&in, stop);
        size_t bytes = field(&in, stop, inner, &event);
        if (inner == 0x0a) read_event(stream, event, event + bytes);
      }
    }
  }
}
