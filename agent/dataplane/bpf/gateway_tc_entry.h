/* The program in clsact filters: inert as soon as the agent is gone, since the program array empties itself then. */
#ifndef ISTHMUS_GATEWAY_TC_ENTRY_H
#define ISTHMUS_GATEWAY_TC_ENTRY_H

#include <linux/pkt_cls.h>

SEC("tc")
int gateway_tc_entry(struct __sk_buff *packet)
{
	bpf_tail_call(packet, &tc_programs, 0);
	return TC_ACT_OK;
}

#endif
