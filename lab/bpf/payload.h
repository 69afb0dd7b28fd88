/* What the generator writes at the start of every UDP payload, and the sink reads; in the host's byte order. */
#ifndef ISTHMUS_PAYLOAD_H
#define ISTHMUS_PAYLOAD_H

#include <linux/types.h>

#define MARK 0x49535448
#define MOST_FLOWS 64
#define MOST_SINKS 32 /* interfaces */

struct payload {
	__u32 mark;
	__u32 flow;
	__u64 sequence; /* of the flow, from 0 */
	__u64 time;     /* when it was made, CLOCK_MONOTONIC in nanoseconds */
};

#endif
