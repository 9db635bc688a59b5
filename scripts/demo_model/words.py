"""Word lists of the script's own: a retraining must not depend on anyone else's lists."""

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


FIRST_NAMES: Final = _words("""
    Anna Ben Carla David Elena Felix Grace Hugo Ines Jack Karin Leo Maria Noah Olga Paul Rosa Sam
    Tina Uwe Vera Will Yara Zoe Alice Bob Carol Dan Eve Frank Gina Hans Ida John Kate Lars Mona Nils
    Otto Petra Ravi Sara Tom Ursula Victor Wanda Yusuf Amir Bela Chen Diego Emma Fatima George Hana
    Ivan Jana Kofi Lucy Mei Nadia Omar Priya Quinn Rita Sven Tariq Una Vlad Wei Xenia Yuki Zara
    Michael Peter Susan Linda James Robert Laura Julia Kevin Marta Pedro Pablo Nina Simon Sophie
    Thomas Martin Mark Luke Mary Jane Elizabeth Alexander Charlotte Benjamin Christopher
""")

CITIES: Final = _words("""
    Berlin Paris Rome Vienna Oslo Lisbon Madrid London Prague Warsaw Dublin Athens Cairo Tokyo Lima
    Boston Chicago Toronto Sydney Nairobi Lagos Delhi Hamburg Munich Zurich Geneva Milan Naples
    Helsinki Stockholm Copenhagen Budapest Seoul Bangkok Texas Bavaria France Spain Italy Norway
""")

COLOURS: Final = _words("""
    red blue green yellow orange purple pink brown black white grey silver gold teal violet cyan
    magenta turquoise crimson indigo beige maroon navy lime olive amber scarlet
""")

ANIMALS: Final = _words("""
    cat dog horse cow fox wolf bear otter owl eagle rabbit mouse lion tiger zebra whale shark frog
    snake goat sheep penguin turtle beaver badger hedgehog camel donkey parrot pigeon elephant
""")

FOODS: Final = _words("""
    pizza pasta bread cheese soup rice salad apple banana cherry mango chocolate cake curry noodles
    pancakes tomato potato olives honey yoghurt porridge sushi falafel tacos lasagne pineapple
""")

NOUNS: Final = _words("""
    apple table river window garden lamp mountain pencil bottle train bridge castle candle cloud
    carpet button ladder engine basket mirror hammer kettle pillow rocket saddle tunnel umbrella
    valley wagon anchor beach blanket camera desert feather forest guitar harbour island jacket
    kitchen letter market needle ocean paper queen ribbon stone ticket village winter
    message bus worker broker topic session queue token model server printer sensor valve pump motor
""")

ADJECTIVES: Final = _words("""
    big small old new fast slow loud quiet warm cold bright dark sweet bitter heavy light round flat
    happy sad funny lucky secret main second first last next special best worst usual home work
""")

THINGS: Final = _phrases("""
    colour, food, animal, number, city, film, song, sport, drink, day, season, book, game, fruit,
    word, band, country, month, flower, tree, car, singer, vegetable, planet, letter, language,
    subject, toy, tea, coffee, cake, soup, dish, bird, fish, river, mountain, island, writer, actor,
    movie, hobby, place, teacher, team, player, shape, instrument, dessert, ice cream, pizza, cheese
""")

BELONGINGS: Final = _phrases("""
    phone number, shoe size, birthday, hobby, lucky number, number, password, pin, code, address,
    city, country, team, hometown, car, bike, laptop, project, job, ticket number, room number,
    seat, order number, weight, height, star sign, dream, goal, plan, telephone, street, house
    number, zip code, email, user name, language, school, company, department, flight, train,
    locker, bank, dentist, doctor, machine, sensor, topic, device, station, colour, animal, food
""")

RELATIVES: Final = _phrases("""
    dog, cat, brother, sister, wife, husband, mother, father, friend, best friend, boss, son,
    daughter, horse, boat, company, team, teacher, neighbour, street, school, hamster, uncle, aunt,
    cousin, grandmother, grandfather, partner, robot, car, parrot, baby, rabbit, goldfish, village
""")

KEYS: Final = _phrases("""
    code, password, secret word, magic word, number, word, secret number, pin, key, secret, code
    word, access code, room number, meeting time, launch code, answer, colour, target, winner,
    deadline, address, order number, serial number, gate, train number, name of the ship
""")

JOBS: Final = _words("""
    baker nurse teacher farmer pilot plumber painter writer driver lawyer doctor gardener cook
    carpenter engineer electrician waiter programmer judge sailor miner tailor butcher
""")

FEELINGS: Final = _phrases("""
    tired, fine, happy, sad, hungry, bored, here, back, testing, busy, sick, cold, thirsty, good,
    okay, great, ready, lost, confused, angry, late, in a hurry, on holiday, at work, at home,
    very happy, not sure, just testing, so tired, a bit tired, new here, a human, a person, curious
""")

TOPICS: Final = _phrases("""
    the capital of France, the weather, quantum physics, the moon, football, cooking rice, history,
    the president, Shakespeare, Python, electric cars, the stock market, the speed of light,
    dinosaurs, black holes, the French revolution, tax law, chess, the Roman empire, gravity,
    climate change, the news, bitcoin, music, love, the meaning of life, the sea, space travel,
    the population of Spain, the height of Everest, the largest planet, photosynthesis, bread,
    the internet, computers, machine learning, medicine, a headache, kings, volcanoes, gardening,
    the best film, the longest river, the time in Tokyo, the price of gold, trains, poetry
""")

ACTIONS: Final = _phrases("""
    write a poem about {t}, explain {t}, tell me about {t}, summarise {t}, describe {t}, write an
    essay on {t}, translate this into French, book a table for two, send an email to Anna, set an
    alarm, write some code for {t}, draw {t}, play some music, search the web for {t}, open the
    door, turn on the light, fix my code, order a pizza, call my mother, give me a recipe, recommend
    a book about {t}, compare {t} with {t}, make a list of facts about {t}, teach me {t}, sing a song,
    solve this riddle, give me advice about {t}, write a letter, find {t}, show me {t}
""")

QUESTIONS: Final = _phrases("""
    what is {t}, what's {t}, who invented {t}, why is {t} important, how does {t} work, where is {t},
    when did {t} begin, how do I learn {t}, what do you think about {t}, do you like {t}, is {t}
    good, how much is {t}, how old is {t}, who likes {t}, which is better {t} or {t}, what do you
    know about {t}, how big is {t}, can you see {t}, have you heard of {t}, why do people like {t},
    what is the difference between {t} and {t}, what causes {t}, how many people know {t}, should I
    buy {t}, what happens with {t}, what is the name of {t}, who is {t}, what colour is {t}, what is
    the number of {t}, how far is {t}, does {t} matter, is it true that {t} is old, where can I
    find {t}, what does {t} mean, who won {t}, will it rain, is it raining, what happened in 1969
""")

REMARKS: Final = _phrases("""
    {t} is nice, I like to talk about {t}, I hate {t}, it is raining, I think {t} is strange, I read
    a book about {t}, yesterday I saw {t}, my computer is slow, this is about {t}, we had lunch, the
    train was late, nobody understands {t}, life is hard, I went to {t}, that is {t}, {t} and {t},
    I need {t}, I want {t}, there is {t}, it was {t}, he told me about {t}, they sell {t}
""")
