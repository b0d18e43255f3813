"""The words our own sentences are made of. Lists only; text.py puts them together."""


def _list(text: str) -> list[str]:
    return [" ".join(item.split()) for item in text.split(",")]


AREAS = _list(
    "kitchen,living room,bedroom,bathroom,hallway,garage,office,garden,basement,attic,dining room,"
    "kids room,laundry room,guest room,balcony,porch,study,pantry,terrace,cellar,nursery,library,"
    "workshop,studio,conservatory,family room,utility room,entrance,stairs,landing,loft,patio,"
    "driveway,backyard,front yard,sun room,game room,closet,corridor,shed,master bedroom"
)
FLOORS = _list("first,second,third,ground,upper,lower,top,main,upstairs,downstairs,middle,basement")
DEVICES = _list(
    "light,lights,lamp,ceiling light,desk lamp,floor lamp,fan,heater,television,tv,speaker,radio,"
    "coffee machine,vacuum,dishwasher,washing machine,dryer,thermostat,air conditioner,humidifier,"
    "sprinkler,plug,night light,bedside lamp,reading lamp,table lamp,wall light,lantern,spotlight,"
    "ceiling fan,kettle,toaster,oven,fridge,freezer,printer,monitor,computer,projector,aquarium,"
    "fountain,pump,boiler,radiator,towel rail,doorbell,camera,router,alarm,christmas tree,"
    "led strip,string lights,fireplace,robot,mower,blender,charger,socket,outlet,switch,chandelier"
)
COVERS = _list(
    "blinds,curtains,shutters,window,garage door,gate,shades,awning,skylight,door,front door,"
    "back door,side door,blind,curtain,shutter,windows,valve"
)
LOCKS = _list("front door,back door,side door,gate,garage door,cellar door,shed,door,safe")
COLOURS = _list(
    "red,green,blue,yellow,orange,purple,pink,white,warm white,cold white,turquoise,cyan,magenta,"
    "violet,lavender,gold,amber,teal,crimson,lime"
)
ITEMS = _list(
    "milk,bread,eggs,butter,cheese,apples,bananas,coffee,tea,sugar,rice,pasta,chicken,tomatoes,"
    "onions,soap,toilet paper,batteries,salt,flour,oranges,potatoes,yogurt,honey,cereal,juice,"
    "carrots,garlic,pepper,olive oil,fish,beef,ham,mushrooms,lettuce,cucumbers,lemons,chocolate,"
    "biscuits,shampoo,toothpaste,dog food,cat food,light bulbs,paper towels,washing powder,beans,"
    "peas,corn,nuts,jam,vinegar,cream,ice cream,sausages,salad,spinach,grapes,pears,strawberries"
)
MUSIC = _list(
    "some jazz,rock music,classical music,the news,my playlist,a podcast,relaxing music,the radio,"
    "christmas songs,my favorite album,the beatles,some blues,piano music,country music,"
    "dance music,the morning show,an audiobook,"
    "ocean sounds,rain sounds,opera,folk songs,the next episode"
)
SCENES = _list(
    "movie,night,party,dinner,reading,away,holiday,morning,evening,cooking,cleaning,guest,sleep,"
    "romantic,bright,relax,focus,work,breakfast,bath time"
)
PEOPLE = _list(
    "anna,ben,carol,david,emma,frank,grace,henry,iris,jack,kate,leo,mary,nick,olivia,peter,quinn,"
    "rose,sam,tom,uma,victor,wendy,xavier,yara,zoe,alice,bob,charlie,daniel,ella,fred,george,"
    "hannah,ian,julia,kevin,lucy,martin,nora,oscar,paul,rachel,simon,tina,walter,mum,dad,grandma,"
    "grandpa,my wife,my husband,my sister,my brother,the boss,the neighbour,the doctor,the dentist"
)
DISHES = _list(
    "pizza,eggs,pasta,tea,laundry,bread,cake,rice,chicken,potatoes,cookies,homework,soup"
)
DAYS = _list("monday,tuesday,wednesday,thursday,friday,saturday,sunday,today,tomorrow,tonight")
MONTHS = _list(
    "january,february,march,april,may,june,july,august,september,october,november,december"
)
PLACES = _list(
    "london,paris,berlin,rome,madrid,vienna,dublin,chicago,boston,texas,california,new york,"
    "seattle,canada,mexico,brazil,india,china,japan,australia,egypt,kenya,norway,sweden,poland,"
    "italy,france,germany,spain,portugal,greece,turkey,russia,iceland,holland,denmark,scotland"
)
NOUNS = _list(
    "man,woman,child,boy,girl,dog,cat,horse,bird,fish,house,car,road,river,mountain,tree,flower,"
    "table,chair,window,door,book,letter,paper,pen,phone,picture,song,story,game,ball,bag,box,"
    "bottle,cup,plate,knife,spoon,fork,shirt,shoe,hat,coat,dress,ring,watch,key,coin,ticket,train,"
    "plane,ship,boat,bridge,street,city,village,market,shop,school,church,hospital,station,farm,"
    "field,forest,island,beach,ocean,lake,cloud,storm,wind,rain,snow,sun,moon,star,fire,stone,"
    "rock,sand,glass,metal,wood,wool,bread,cheese,apple,orange,lemon,cake,soup,meat,teacher,"
    "doctor,nurse,farmer,driver,soldier,king,queen,friend,brother,sister,mother,father,uncle,"
    "aunt,baby,crowd,team,army,number,question,answer,word,idea,problem,reason,story,dream,plan,"
    "job,price,bill,lesson,group,part,side,edge,corner,middle,top,bottom,line,circle,square,"
    "engine,wheel,machine,tool,hammer,nail,rope,chain,brush,mirror,clock,candle,basket,blanket,"
    "pillow,carpet,wall,roof,floor,garden,fence,path,hill,valley,desert,jungle,castle,tower,"
    "museum,theatre,kitchen,office,factory,country,nation,people,judge,lawyer,painter,singer,"
    "sailor,captain,pilot,thief,guard,guest,neighbour,stranger,tiger,elephant,monkey,rabbit,"
    "mouse,sheep,goat,chicken,duck,eagle,spider,snake,turtle,whale,bear,fox,wolf,frog,bee"
)
ADJECTIVES = _list(
    "old,new,young,big,small,long,short,tall,heavy,light,dark,bright,warm,cold,hot,cool,wet,dry,"
    "clean,dirty,empty,full,open,quiet,loud,quick,slow,strong,weak,rich,poor,happy,sad,angry,"
    "tired,hungry,thirsty,kind,cruel,brave,shy,clever,silly,strange,simple,easy,hard,soft,smooth,"
    "rough,sharp,round,flat,deep,shallow,wide,narrow,thick,thin,green,red,blue,yellow,black,"
    "white,brown,grey,golden,silver,wooden,broken,lost,hidden,famous,secret,gentle,fresh,sweet,"
    "sour,bitter,spicy,perfect,terrible,wonderful,beautiful,ugly,expensive,cheap,ancient,modern,"
    "common,rare,public,private,foreign,local,distant,nearby,dangerous,safe,careful,lazy,busy"
)
PAST = _list(
    "saw,found,lost,carried,bought,sold,opened,closed,broke,built,painted,watched,followed,"
    "heard,liked,loved,hated,wanted,needed,took,gave away,brought,left,kept,hid,threw,caught,"
    "pushed,pulled,dropped,washed,cleaned,cooked,ate,drank,wrote about,read about,asked for,"
    "talked about,thought about,remembered,forgot,painted,measured,counted,chose,showed,"
    "visited,passed,climbed,crossed,entered,reached,touched,moved,stopped,started,finished,"
    "covered,filled,fixed,changed,created,destroyed,shared,borrowed,returned,picked up"
)
VERBS = _list(
    "see,find,lose,carry,buy,sell,open,close,break,build,paint,watch,follow,hear,like,love,want,"
    "need,take,bring,leave,keep,hide,throw,catch,push,pull,drop,wash,clean,cook,eat,drink,read,"
    "ask about,talk about,think about,remember,forget,measure,count,choose,show,visit,climb,"
    "cross,enter,reach,touch,move,stop,start,finish,cover,fill,fix,change,share,borrow,return"
)
PREPOSITIONS = _list(
    "in,on,under,behind,near,beside,above,below,inside,outside,across from,next to,in front of,"
    "between the trees and,around,beyond,against,at the end of,on top of,far from"
)
TIMES = _list(
    "yesterday,today,last night,this morning,every day,in the evening,after lunch,before dinner,"
    "last week,next year,at midnight,at noon,in the summer,in winter,long ago,once,twice,again,"
    "all day,for a while,on sunday,last month,at the weekend,soon,later,now,then,sometimes,never"
)
ONES = _list(
    "zero,one,two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,thirteen,fourteen,"
    "fifteen,sixteen,seventeen,eighteen,nineteen"
)
TENS = _list("twenty,thirty,forty,fifty,sixty,seventy,eighty,ninety")
QUESTIONS = _list("who,why,when,where,how")
ADVERBS = _list(
    "quickly,slowly,carefully,quietly,loudly,suddenly,gently,happily,sadly,finally,nearly,"
    "always,never,often,usually,really,probably,perhaps,certainly,almost,simply,easily,together"
)
EVERYDAY = _list(
    "turn on the living room lamp,turn on the living room light,turn off the living room lamp,"
    "turn off the living room light,turn the living room lamp on,turn the living room light on,"
    "switch on the living room lamp,switch on the living room light,turn on the kitchen light,"
    "turn off the kitchen light,turn on the lights,turn off the lights,what time is it,"
    "set a timer for five minutes,set a timer for ten minutes,stop,cancel,never mind,good morning,"
    "good night,thank you,what's the weather like today,turn off all the lights"
)
"""Sentences that are always in the training set."""
