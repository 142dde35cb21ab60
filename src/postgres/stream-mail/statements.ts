/** $1 whom it is for, $2 the letter, $3 milliseconds within which it is to be taken. */
export const sendMail = `
  select millrace.send_stream_mail($1, $2, $3::float8 operator(pg_catalog.*) interval '1 millisecond')::text as id`;

/** $1 who takes. In the order in which they were sent. */
export const takeMail = "select m.id::text as id, m.letter from millrace.take_stream_mail($1) m order by m.id";

/** $1 the letter, $2 the answer. */
export const answerMail = "select millrace.answer_stream_mail($1::bigint, $2)";

/** $1 the letter, $2 whether it is withdrawn. */
export const collectMail = "select taken, answer from millrace.collect_stream_mail($1::bigint, $2)";
