/* The program in clsact filters, which outlive the agent: the kernel empties the program array once nobody has it open,
 * and then this does nothing. */
#ifndef ISTHMUS_GATEWAY_TC_ENTRY_H
#define ISTHMUS_GATEWAY_TC_ENTRY_H

#include <linux/pkt_cls.h>

SEC("tc")
int gateway_tc_entry(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &tc_programs, 0);
	return TC_ACT_UNSPEC;
}

#endif
