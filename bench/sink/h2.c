/* HTTP/2, as far as a reader of server streams needs it: frames, credit, PING; no header is read. */
#include "sink.h"
#include <stdlib.h>
#include <string.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { DEFAULT_WINDOW = 65535, MAX_WINDOW = 0x7fffffff };

static uint8_t *put32(uint8_t *at, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) *at++ = value >> shift;
  return at;
}

static uint8_t *put_head(uint8_t *at, uint32_t length, uint8_t type, uint8_t flags, uint32_t id) {
  put32(at, length << 8 | type);
  at[4] = flags;
  return put32(at + 5, id);
}

static uint8_t *put_text(uint8_t *at, const char *text) {
  size_t length = strlen(text);
  *at++ = length;
  memcpy(at, text, length);
  return at + length;
}

static void give_back(int fd, uint32_t id, uint32_t bytes) {
  uint8_t frame[13];
  put32(put_head(frame, 4, WINDOW_UPDATE, 0, id), bytes);
  send_all(fd, frame, sizeof frame);
}

static uint8_t *put_request(uint8_t *at, uint32_t id) {
  uint8_t block[1024], *end = block;
  *end++ = 0x83; /* POST */
  *end++ = 0x86; /* http */
  *end++ = 0x04;
  end = put_text(end, options.path);
  *end++ = 0x01;
  end = put_text(end, "localhost");
  *end++ = 0;
  end = put_text(put_text(end, "content-type"), options.type);
  *end++ = 0;
  end = put_text(put_text(end, "te"), "trailers");
  if (strstr(options.type, "connect") != NULL) {
    *end++ = 0;
    end = put_text(put_text(end, "connect-protocol-version"), "1");
  }
  at = put_head(at, end - block, HEADERS, 4, id);
  memcpy(at, block, end - block);
  at = put_head(at + (end - block), 5 + options.body_length, DATA, 1, id);
  *at++ = 0;
  at = put32(at, options.body_length);
  memcpy(at, options.body, options.body_length);
  return at + options.body_length;
}

void h2_open(struct connection *connection) {
  uint8_t *out = malloc(64 + (size_t)options.streams * (1100 + options.body_length)), *at = out;
  memcpy(at, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  at = put_head(at + 24, 6, SETTINGS, 0, 0);
  *at++ = 0;
  *at++ = 4;
  at = put32(at, options.window);
  if (options.window > DEFAULT_WINDOW) at = put32(put_head(at, 4, WINDOW_UPDATE, 0, 0), MAX_WINDOW - DEFAULT_WINDOW);
  for (int i = 0; i < options.streams; i++) at = put_request(at, 1 + 2 * i);
  send_all(connection->fd, out, at - out);
  free(out);
}

static void begin_frame(struct connection *connection) {
  const uint8_t *head = connection->head;
  connection->remaining = head[0] << 16 | head[1] << 8 | head[2];
  connection->type = head[3];
  connection->flags = head[4];
  connection->id = (head[5] & 0x7fu) << 24 | head[6] << 16 | head[7] << 8 | head[8];
  uint32_t index = (connection->id - 1) / 2;
  bool known = connection->id != 0 && index < (uint32_t)options.streams;
  struct stream *stream = connection->into = known ? &connection->streams[index] : NULL;
  bool over = (connection->type == DATA || connection->type == HEADERS) && (connection->flags & 1) != 0;
  if (connection->type == RST_STREAM) counts.resets++;
  if (connection->type == GOAWAY) counts.goaways++;
  if (stream != NULL && !stream->ended && (over || connection->type == RST_STREAM)) {
    stream->ended = true;
    counts.ended++;
  }
  if (connection->type != DATA || stream == NULL) return;
  uint32_t length = connection->remaining;
  if (stream->stuck) {
    /* As clients that give the connection's credit back with the stream's: what nobody reads is not given back. */
    if (options.share_credit) return;
  } else {
    stream->credit += length;
    if (stream->credit >= options.window / 2) {
      give_back(connection->fd, connection->id, stream->credit);
      stream->credit = 0;
    }
  }
  connection->credit += length;
  uint64_t limit = options.window > DEFAULT_WINDOW ? 1u << 29 : DEFAULT_WINDOW / 4;
  if (connection->credit >= limit) {
    give_back(connection->fd, 0, connection->credit);
    connection->credit = 0;
  }
}

/* A part of a call's body: whole messages are read where they lie, others gathered. */
static void read_body(struct stream *stream, const uint8_t *bytes, size_t length) {
  while (length > 0) {
    if (stream->need == 0) {
      size_t take = 5 - stream->have < length ? 5 - stream->have : length;
      memcpy(stream->envelope + stream->have, bytes, take);
      stream->have += take;
      bytes += take;
      length -= take;
      if (stream->have < 5) return;
      const uint8_t *size = stream->envelope + 1;
      stream->need = (uint32_t)size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3];
      stream->have = 0;
      if (stream->need == 0 || length == 0) continue;
    }
    if (stream->have == 0 && length >= stream->need) {
      /* Bit 7 and bit 1 of the first byte: trailers of gRPC-Web and the end of a Connect stream, which are no messages. */
      if ((stream->envelope[0] & 0x82) == 0) read_message(stream, bytes, stream->need);
      bytes += stream->need;
      length -= stream->need;
      stream->need = 0;
      continue;
    }
    if (stream->message == NULL) stream->message = malloc(stream->need);
    size_t take = stream->need - stream->have < length ? stream->need - stream->have : length;
    memcpy(stream->message + stream->have, bytes, take);
    stream->have += take;
    bytes += take;
    length -= take;
    if (stream->have < stream->need) return;
    if ((stream->envelope[0] & 0x82) == 0) read_message(stream, stream->message, stream->need);
    free(stream->message);
    stream->message = NULL;
    stream->need = stream->have = 0;
  }
}

static void end_frame(struct connection *connection) {
  uint8_t answer[17];
  bool acknowledged = (connection->flags & 1) != 0;
  if (connection->type == SETTINGS && !acknowledged) {
    put_head(answer, 0, SETTINGS, 1, 0);
    send_all(connection->fd, answer, 9);
  } else if (connection->type == PING && !acknowledged) {
    memcpy(put_head(answer, 8, PING, 1, 0), connection->head + 9, 8);
    send_all(connection->fd, answer, 17);
  }
  connection->head_length = 0;
}

void h2_read(struct connection *connection, const uint8_t *bytes, size_t length) {
  while (length > 0) {
    if (connection->head_length < 9) {
      size_t take = 9 - connection->head_length;
      if (take > length) take = length;
      memcpy(connection->head + connection->head_length, bytes, take);
      connection->head_length += take;
      bytes += take;
      length -= take;
      if (connection->head_length < 9) return;
      begin_frame(connection);
    }
    uint32_t take = connection->remaining < length ? connection->remaining : length;
    if (connection->type == DATA && connection->into != NULL) read_body(connection->into, bytes, take);
    else if (connection->type == PING)
      for (uint32_t i = 0; i < take && connection->head_length < 17; i++) connection->head[connection->head_length++] = bytes[i];
    connection->remaining -= take;
    bytes += take;
    length -= take;
    if (connection->remaining == 0) end_frame(connection);
  }
}
