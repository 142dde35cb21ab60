/* The NATS protocol, as far as a subscriber and a publisher of one subject need it. */
#include "sink.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAYLOAD = 250 };

void nats_open(struct connection *connection) {
  char *out = malloc(128 + (size_t)options.streams * 24), *at = out;
  at += sprintf(at, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
  for (int i = 0; i < options.streams; i++) at += sprintf(at, "SUB bench %d\r\n", i);
  at += sprintf(at, "PING\r\n");
  send_all(connection->fd, out, at - out);
  free(out);
}

static void read_line(struct connection *connection) {
  const char *line = (const char *)connection->head;
  if (strncmp(line, "MSG ", 4) == 0) {
    const char *id = strchr(line + 4, ' '), *size = strrchr(line, ' ');
    connection->into = &connection->streams[atoi(id)];
    connection->remaining = atoi(size);
    connection->skip = 2;
    connection->id = 0;
    return;
  }
  if (strncmp(line, "PING", 4) == 0) send_all(connection->fd, "PONG\r\n", 6);
  else if (strncmp(line, "PONG", 4) == 0) counts.answered += options.streams;
  else if (strncmp(line, "-ERR", 4) == 0) {
    fprintf(stderr, "sink: %s\n", line);
    exit(1);
  }
}

void nats_read(struct connection *connection, const uint8_t *bytes, size_t length) {
  while (length > 0) {
    if (connection->remaining > 0) {
      uint32_t take = connection->remaining < length ? connection->remaining : length;
      if (options.latency)
        for (uint32_t i = 0; i < take && connection->id < 26; i++) connection->head[connection->id++] = bytes[i];
      connection->remaining -= take;
      bytes += take;
      length -= take;
      if (connection->remaining > 0) return;
      if (options.latency && connection->head[7] <= '9') note_stamp(connection->head + 7);
      connection->into->events++;
      counts.events++;
      counts.messages++;
    } else if (connection->skip > 0) {
      connection->skip--;
      bytes++;
      length--;
    } else {
      const uint8_t *newline = memchr(bytes, '\n', length);
      size_t part = newline == NULL ? length : (size_t)(newline - bytes);
      size_t room = sizeof connection->head - 1 - connection->head_length, copy = part < room ? part : room;
      memcpy(connection->head + connection->head_length, bytes, copy);
      connection->head_length += copy;
      bytes += part + (newline != NULL);
      length -= part + (newline != NULL);
      if (newline == NULL) return;
      connection->head[connection->head_length] = 0;
      read_line(connection);
      connection->head_length = 0;
    }
  }
}

/* As many writes as there are bursts. */
void nats_publish(int fd, int count, int burst) {
  static char out[1 << 16];
  while (count > 0) {
    char *at = out;
    for (int i = 0; i < burst && count > 0; i++, count--) {
      at += sprintf(at, "PUB bench %d\r\n", PAYLOAD);
      int head = sprintf(at, "{\"at\":\"%019llu\",\"text\":\"", (unsigned long long)now_ns());
      memset(at + head, 'x', PAYLOAD - 2 - head);
      memcpy(at + PAYLOAD - 2, "\"}\r\n", 4);
      at += PAYLOAD + 2;
    }
    send_all(fd, out, at - out);
  }
}
